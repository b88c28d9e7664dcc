"""The traces of H, G and H_r."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from runner.curvature.operator import MATRICES, Matrix
from runner.curvature.trace import LEAST_PRODUCTS, hutch_plus_plus
from runner.errors import BadInput
from runner.probe.base import Point, Probe


@dataclass(kw_only=True)
class Trace(Probe):
    """tr M by Hutch++ and its standard error, for each matrix two columns: H, H_se, …

    matrix: one of H, G, H_r, or a list of them.
    products: with each matrix, a third of them for each part of the method; where the network has no more weights than
    that, the trace is exact and its error 0.
    """

    matrix: Matrix | Sequence[Matrix] = MATRICES
    products: int = 60

    def __post_init__(self) -> None:
        super().__post_init__()
        self.matrices: list[Matrix] = [self.matrix] if isinstance(self.matrix, str) else list(self.matrix)  # type: ignore[list-item]
        if not self.matrices or len(set(self.matrices)) != len(self.matrices):
            raise BadInput(f"matrix should list some of {', '.join(MATRICES)}, each once; found {self.matrix}")
        if self.products < LEAST_PRODUCTS:
            raise BadInput(f"products should be at least {LEAST_PRODUCTS}, found {self.products}")

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(f"{matrix}{suffix}" for matrix in self.matrices for suffix in ("", "_se"))

    def measure(self, point: Point) -> dict[str, Tensor | None]:
        cells: dict[str, Tensor | None] = {}
        for matrix in self.matrices:
            operator, generator = point.operator(matrix), torch.Generator().manual_seed(point.seed)
            estimate = hutch_plus_plus(operator, operator.n, self.products, operator.dtype, operator.device, generator)
            cells[matrix], cells[f"{matrix}_se"] = estimate
        return cells
