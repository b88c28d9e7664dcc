"""How orthogonal the gradient is to H_r: the products of all three matrices with it."""

from torch import Tensor

from runner.curvature.operator import MATRICES
from runner.curvature.vectors import cosine, flatten, norm
from runner.probe.base import Point, Probe


class Products(Probe):
    """norm_M = |M g| and cos_M = g'Mg / (|g| |M g|) for M = H, G and H_r, exact. The gradient is nearly orthogonal to
    H_r (Convex Behavior, abstract) where |H_r g| is small beside |G g|."""

    names = tuple(f"{name}_{matrix}" for matrix in MATRICES for name in ("norm", "cos"))
    double_backward = True

    def measure(self, point: Point) -> dict[str, Tensor | None]:
        cells: dict[str, Tensor | None] = {}
        for matrix in MATRICES:
            product = {"": point.operator(matrix)(flatten(point.g))}
            cells[f"norm_{matrix}"] = norm(product)
            cells[f"cos_{matrix}"] = cosine({"": flatten(point.g)}, product)
        return cells
