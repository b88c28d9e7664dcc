"""How much of the gradient lies along the largest eigenvectors."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from runner.curvature.vectors import flatten
from runner.errors import BadInput
from runner.probe.base import Point
from runner.probe.lanczos import LanczosProbe, largest_residual


@dataclass(kw_only=True)
class Alignment(LanczosProbe):
    """share = |P g|^2 / |g|^2, where P projects on the eigenvectors v_1, …, v_k of the k largest eigenvalues theta, and
    along = sum_i theta_i (v_i'g)^2, the part of curvature = g'Mg that lies there. Also the largest residual
    |M v - theta v|, and the number of products that the eigenvectors took. An eigenvector is off by about its residual
    over the gap to the next eigenvalue; `tol` makes it smaller.

    k: a number, or a list of them, which gives `share_k5` and `along_k5` for each.
    """

    both_ends = False

    k: int | Sequence[int] = (1, 5)

    def __post_init__(self) -> None:
        self.counts = [self.k] if isinstance(self.k, int) else list(self.k)
        if not self.counts or len(set(self.counts)) != len(self.counts) or min(self.counts) < 1:
            raise BadInput(f"k should be a number of at least 1, or a list of different ones, found {self.k}")
        super().__post_init__()

    @property
    def most(self) -> int:
        return max(self.counts)

    @property
    def columns(self) -> tuple[str, ...]:
        own = [f"{name}{self._suffix(k)}" for k in self.counts for name in ("share", "along")]
        return (*own, "curvature", "residual", "products")

    def measure(self, point: Point) -> dict[str, Tensor | None]:
        found, g = self.eigenpairs(point), flatten(point.g)
        squares = (found.largest.vectors @ g).double().cpu().square()
        cells: dict[str, Tensor | None] = {}
        for k in self.counts:
            cells[f"share{self._suffix(k)}"] = squares[:k].sum() / torch.dot(g, g).double().cpu()
            cells[f"along{self._suffix(k)}"] = found.largest.values[:k] @ squares[:k]
        return cells | {
            "curvature": torch.dot(g, point.operator(self.matrix)(g)),
            "residual": largest_residual(found.largest),
            "products": torch.tensor(found.products),
        }

    def _suffix(self, k: int) -> str:
        return "" if isinstance(self.k, int) else f"_k{k}"
