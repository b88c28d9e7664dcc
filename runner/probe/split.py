"""The exact split of the curvature along the gradient into its Gauss-Newton and its residual part."""

from torch import Tensor

from runner.curvature.forward import split
from runner.probe.base import Point, Probe


class Split(Probe):
    """gHg = g'Hg, gGg = g'Gg, gHrg = g'H_r g with H = G + H_r, exact."""

    names = ("gHg", "gGg", "gHrg")

    def measure(self, point: Point) -> dict[str, Tensor | None]:
        parts = split(point.loss, point.g)
        return {"gHg": parts.gHg, "gGg": parts.gGg, "gHrg": parts.gHrg}
