"""What the probes share that look for outer eigenpairs: their options, and starts from one measurement to the next."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from runner.curvature.lanczos import Eigenpairs, Outer, outer_eigenpairs, random_vectors
from runner.curvature.operator import Matrix
from runner.errors import BadInput
from runner.probe.base import Point, Probe


@dataclass(kw_only=True)
class LanczosProbe(Probe):
    """Finds the outer eigenpairs of a matrix by block Lanczos, as many vectors a block as are sought at either end, so
    that no copy of a multiple eigenvalue is missed.

    It starts from the eigenvectors found last at the same place, and from random vectors of the same length: these
    look again everywhere, so that an eigenvector that is new is found as surely as one that was known.

    matrix: H, G or H_r.
    tol: converged where |M v - theta v| <= tol max |theta|.
    max_iterations: Lanczos vectors at most, each a product with the matrix and a vector kept in memory; never more than
    there are weights. What has not converged by then shows in the residuals.
    """

    double_backward = True
    both_ends: ClassVar[bool]

    matrix: Matrix = "H"
    tol: float = 1e-4
    max_iterations: int = 200

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.tol > 0:
            raise BadInput(f"tol should be a number > 0, found {self.tol}")
        if self.most < 1:
            raise BadInput(f"k should be at least 1, found {self.most}")
        least = self.most * (1 + self.both_ends)
        if self.max_iterations < least:
            raise BadInput(
                f"max_iterations should be at least {least}, one for each eigenpair, found {self.max_iterations}"
            )
        self._starts: dict[str, Tensor] = {}

    @property
    @abstractmethod
    def most(self) -> int:
        """How many eigenpairs are sought at an end."""

    def state(self) -> dict[str, Any]:
        return {"starts": {where: start.cpu() for where, start in self._starts.items()}}

    def load(self, state: dict[str, Any]) -> None:
        self._starts = dict(state["starts"])

    def eigenpairs(self, point: Point) -> Outer:
        """At the point; computed once."""
        if "eigenpairs" not in point.memo:
            point.memo["eigenpairs"] = self._find(point)
        return point.memo["eigenpairs"]

    def _find(self, point: Point) -> Outer:
        operator, where = point.operator(self.matrix), f"{point.place}/{point.replica}"
        generator = torch.Generator().manual_seed(point.seed)
        start = random_vectors(min(self.most, operator.n), operator.n, operator.dtype, operator.device, generator)
        if where in self._starts:
            start += self._starts[where].to(start)
        outer = outer_eigenpairs(
            operator,
            start,
            largest=self.most,
            smallest=self.most if self.both_ends else 0,
            tol=self.tol,
            most=self.max_iterations,
            generator=generator,
        )
        self._starts[where] = mixed(outer.largest, outer.smallest)
        return outer


def mixed(largest: Eigenpairs, smallest: Eigenpairs) -> Tensor:
    """(k, n): unit vectors, the i-th between the i-th eigenvectors of both ends, which one product parts again."""
    if not len(smallest.vectors):
        return largest.vectors
    return torch.nn.functional.normalize(largest.vectors + smallest.vectors, dim=1)


def largest_residual(*ends: Eigenpairs) -> Tensor:
    """0-d: of all pairs."""
    return torch.cat([end.residuals for end in ends]).max()
