"""The exact Hessian-vector product along the gradient."""

from torch import Tensor

from runner.curvature.exact import hessian_product
from runner.curvature.vectors import cosine, norm
from runner.probe.base import Point, Probe


class HessianVectorProduct(Probe):
    """gHg = g'Hg, Hg_norm = |Hg| and Hg_cosine = g'Hg / (|g| |Hg|), exact, by double backward."""

    names = ("gHg", "Hg_norm", "Hg_cosine")
    side_by_side = True
    double_backward = True

    def measure(self, point: Point) -> dict[str, Tensor | None]:
        result = hessian_product(point.loss, point.g)
        return {
            "gHg": result.gHg,
            "Hg_norm": norm(result.product, point.loss.stacked),
            "Hg_cosine": cosine(point.g, result.product, point.loss.stacked),
        }
