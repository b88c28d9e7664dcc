"""The traces and Frobenius norms of H, G and H_r."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from runner.curvature.operator import MATRICES, Matrix
from runner.curvature.trace import LEAST_PRODUCTS, hutch_plus_plus
from runner.errors import BadInput
from runner.probe.base import Point, Probe

SUFFIXES = ("", "_se", "_frobenius", "_frobenius_se")  # as Estimates has them


@dataclass(kw_only=True)
class Trace(Probe):
    """tr M and |M|_F by Hutch++ and their standard errors, for each matrix four columns: H, H_se, H_frobenius,
    H_frobenius_se, …

    matrix: one of H, G, H_r, or a list of them.
    products: with each matrix, a third of them for each part of the method; where the network has no more weights than
    that, both are exact and their errors 0.
    """

    double_backward = True

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
        return tuple(f"{matrix}{suffix}" for matrix in self.matrices for suffix in SUFFIXES)

    def measure(self, point: Point) -> dict[str, Tensor | None]:
        cells: dict[str, Tensor | None] = {}
        for matrix in self.matrices:
            operator, generator = point.operator(matrix), torch.Generator().manual_seed(point.seed)
            found = hutch_plus_plus(operator, operator.n, self.products, operator.dtype, operator.device, generator)
            cells |= {f"{matrix}{suffix}": number for suffix, number in zip(SUFFIXES, found, strict=True)}
        return cells
