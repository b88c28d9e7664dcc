"""The outer eigenvalues of H, G or H_r."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from runner.cells import Cell
from runner.probe.base import Point
from runner.probe.lanczos import LanczosProbe, largest_residual


@dataclass(kw_only=True)
class Spectrum(LanczosProbe):
    """The k largest and the k smallest eigenvalues, all where there are fewer than k, into spectrum.csv: `end` (largest
    or smallest), `index` (0 is the outermost), `value` theta, `residual` |M v - theta v| of a unit v.

    In metrics.csv: the outermost two, the largest residual of all, and the number of products that were made.
    """

    names = ("largest", "smallest", "residual", "products")
    both_ends = True

    k: int = 5

    @property
    def most(self) -> int:
        return self.k

    def measure(self, point: Point) -> dict[str, Tensor | None]:
        found = self.eigenpairs(point)
        return {
            "largest": found.largest.values[0],
            "smallest": found.smallest.values[0],
            "residual": largest_residual(found.largest, found.smallest),
            "products": torch.tensor(found.products),
        }

    @property
    def table(self) -> tuple[str, ...]:
        return ("index", "value", "end", "residual")

    def rows(self, point: Point) -> Iterator[dict[str, Cell]]:
        found = self.eigenpairs(point)
        for end, pairs in (("largest", found.largest), ("smallest", found.smallest)):
            for index, (value, residual) in enumerate(zip(pairs.values, pairs.residuals, strict=True)):
                yield {"index": index, "value": value, "end": end, "residual": residual}
