"""The whole Hessian of a small network, its two parts, and all their eigenvalues."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from runner.cells import Cell
from runner.curvature.batch_loss import BatchLoss
from runner.curvature.dense import matrices
from runner.curvature.operator import MATRICES, Matrix
from runner.errors import BadInput
from runner.probe.base import Point, Probe

SIDE_BY_SIDE_UP_TO = 500  # weights; the matrices of more are held one network after the other


@dataclass(kw_only=True)
class Hessian(Probe):
    """All eigenvalues of H, G and H_r into hessian.csv, ascending, and for each matrix the numbers of positive, zero
    and negative ones with the tolerance they were told apart by, the largest and the smallest.

    matrices: some of H, G, H_r.
    zero: eigenvalues of at most this share of the largest |eigenvalue| count as zero. Those that are zero in theory are
    of the size of rounding, 1e-16 n, at a point that is itself exact; at a minimum they are as large as sqrt(loss).
    save: keep the matrices too, as hessian/<matrix>-step<n>.npy, rows and columns in the order of the parameters.
    memory_gib: refuse networks whose matrices and their decomposition need more.
    """

    double_backward = True
    names = ("positive", "zero", "negative", "tolerance", "largest", "smallest")

    matrices: Sequence[Literal["H", "G", "H_r"]] = MATRICES
    zero: float = 1e-10
    save: bool = False
    memory_gib: float = 4.0
    dtype: Literal["fp32", "fp64"] | None = "fp64"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.matrices or set(self.matrices) - set(MATRICES) or len(set(self.matrices)) != len(self.matrices):
            raise BadInput(f"matrices should list some of H, G, H_r, each once; found {list(self.matrices)}")
        if not 0 <= self.zero < 1:
            raise BadInput(f"zero should be a share of the largest eigenvalue, from 0 to below 1, found {self.zero}")

    def prepare(self, loss: BatchLoss, samples: int, measurements: int) -> None:
        self._n = sum(w.numel() for w in loss.weights.values())
        size = torch.finfo(loss.dtype if self.dtype is None else getattr(torch, f"float{self.dtype[2:]}")).bits // 8
        needed = (len(self.matrices) + 2) * size * self._n**2 / 2**30  # the eigenvalues take two more for a while
        if needed > self.memory_gib:
            raise BadInput(
                f"the matrices of a network with {self._n:,} weights need {needed:,.1f} GiB, and memory_gib is "
                f"{self.memory_gib:g}: choose a smaller network, allow more, or use probe=spectrum or probe=density"
            )

    @property
    def side_by_side(self) -> bool:  # type: ignore[override]
        return self._n <= SIDE_BY_SIDE_UP_TO

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(f"{matrix}_{name}" for matrix in self.matrices for name in self.names)

    @property
    def table(self) -> tuple[str, ...]:
        return ("matrix", "index", "value")

    def measure(self, point: Point) -> dict[str, Tensor | None]:
        cells: dict[str, Tensor | None] = {}
        for matrix, values in self._eigenvalues(point).items():
            tolerance = self.zero * values.abs().amax(-1)
            above, below = values > tolerance[..., None], values < -tolerance[..., None]
            numbers = (
                above.sum(-1),
                (~above & ~below).sum(-1),
                below.sum(-1),
                tolerance,
                values[..., -1],
                values[..., 0],
            )
            cells |= {f"{matrix}_{name}": number for name, number in zip(self.names, numbers, strict=True)}
        return cells

    def rows(self, point: Point) -> Iterator[dict[str, Cell]]:
        for matrix, values in self._eigenvalues(point).items():
            for index in range(values.shape[-1]):
                yield {"matrix": matrix, "index": index, "value": values[..., index]}

    def files(self, point: Point) -> Iterator[tuple[str, Any]]:
        if self.save:
            for matrix, entries in self._matrices(point).items():
                yield matrix, entries.cpu().numpy()

    def _matrices(self, point: Point) -> dict[Matrix, Tensor]:
        if "matrices" not in point.memo:
            point.memo["matrices"] = matrices(point.loss, self.matrices)
        found: dict[Matrix, Tensor] = point.memo["matrices"]
        return found

    def _eigenvalues(self, point: Point) -> dict[Matrix, Tensor]:
        if "eigenvalues" not in point.memo:
            found = self._matrices(point)
            point.memo["eigenvalues"] = {matrix: torch.linalg.eigvalsh(entries) for matrix, entries in found.items()}
        values: dict[Matrix, Tensor] = point.memo["eigenvalues"]
        return values
