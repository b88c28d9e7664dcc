"""Krylov spaces of a symmetric map M on (n,), and the outer eigenpairs that they hold."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from runner.curvature.precision import full_precision

Map = Callable[[Tensor], Tensor]  # v -> M v, (n,) to (n,)
ROUNDING = 10.0  # a vector that is shorter than so many epsilons of |M| is zero


def random_vectors(count: int, n: int, dtype: torch.dtype, device: torch.device, generator: Generator) -> Tensor:
    """(count, n): unit vectors of uniformly random direction, drawn on the CPU, so that every device gets the same."""
    drawn = torch.randn(count, n, dtype=dtype, generator=generator)
    return (drawn / torch.linalg.vector_norm(drawn, dim=1, keepdim=True)).to(device)


@dataclass(frozen=True)
class Ritz:
    """The eigenpairs of V'MV, ascending, float64 on the CPU: `values` theta (p,), `weights` of the vectors v = V y as
    the columns y (p, p), and `residuals` |M v - theta v| (p,). All nan where M gave numbers that are not finite."""

    values: Tensor
    weights: Tensor
    residuals: Tensor


class KrylovSpace:
    """An orthonormal basis V of span{S, MS, M^2 S, …}, that grows by one product at a time, and V'MV.

    This is band Lanczos, that is block Lanczos a vector at a time (Ruhe 1979), with every vector orthogonalised twice
    against all before it: without that, eigenvalues found once come back as ghosts. Where a vector vanishes the space
    is invariant; a random one orthogonal to it is put in its place if there is a generator, else the width shrinks.
    A block of b start vectors sees eigenvalues of a multiplicity up to b, and a single one sees each once.

    `start`: S, (b, n), as rows; basis and products are in its dtype and on its device, V'MV is in float64 on the CPU.
    `most`: the number of products allowed; n are always enough. Memory: min(most + b, n) vectors.
    """

    def __init__(self, product: Map, start: Tensor, most: int, generator: Generator | None = None) -> None:
        n = start.shape[1]
        self.most = min(most, n)
        rows = min(self.most + len(start), n)
        self._product, self._generator = product, generator
        self._basis = start.new_empty(rows, n)
        self._projected = torch.zeros(rows, self.most, dtype=torch.float64)  # V'MV, a column for each product
        self.held = self.products = 0
        self._size = 0.0  # the largest |M v| so far, for what counts as zero
        for vector in start[:rows]:
            self._hold(self._orthogonal(vector)[1], self._epsilon(torch.linalg.vector_norm(vector).item()))

    @property
    def full(self) -> bool:
        """It cannot grow: it is invariant, or all products are used."""
        return self.products == min(self.held, self.most)

    def grow(self, count: int) -> None:
        """By so many products, or until it is full."""
        while count and not self.full:
            self._multiply()
            count -= 1

    def ritz(self) -> Ritz:
        """Of the products made so far. What V holds of M V y beyond theta V y is known without another product."""
        p = self.products
        if not self._projected.isfinite().all():
            nan = torch.full((p, p), torch.nan, dtype=torch.float64)
            return Ritz(nan[0], nan, nan[0])
        columns = self._projected[: self.held, :p]
        values, weights = torch.linalg.eigh((columns[:p] + columns[:p].T) / 2)
        remainder = columns @ weights
        remainder[:p] -= weights * values
        return Ritz(values, weights, torch.linalg.vector_norm(remainder, dim=0))

    def vectors(self, weights: Tensor) -> Tensor:
        """(k, n): v = V y for the columns y of (p, k), unit rows."""
        with full_precision():
            return weights.T.to(self._basis) @ self._basis[: self.products]

    def _multiply(self) -> None:
        column = self.products
        image = self._product(self._basis[column])
        self._size = max(self._size, torch.linalg.vector_norm(image).item())
        entries, rest = self._orthogonal(image)
        self._projected[: self.held, column] = entries.to(self._projected)
        if self.held < len(self._basis):
            row, length = self.held, self._hold(rest, self._epsilon(self._size))
            if length:
                self._projected[row, column] = length
        self.products += 1

    def _orthogonal(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """V'u, and u without its part in V: twice, since once leaves what cancellation has lost."""
        V = self._basis[: self.held]
        with full_precision():
            entries = V @ vector
            rest = vector - entries @ V
            again = V @ rest
            return entries + again, rest - again @ V

    def _hold(self, vector: Tensor, least: float) -> float:
        """Take a vector that is orthogonal to the basis into it; its length, or 0 where it has vanished."""
        length = torch.linalg.vector_norm(vector).item()
        vanished = not length > least
        if vanished:
            if self._generator is None:
                return 0.0
            fresh = random_vectors(1, len(vector), vector.dtype, vector.device, self._generator)[0]
            vector = self._orthogonal(fresh)[1]
        self._basis[self.held] = vector / torch.linalg.vector_norm(vector)
        self.held += 1
        return 0.0 if vanished else length

    def _epsilon(self, size: float) -> float:
        return ROUNDING * torch.finfo(self._basis.dtype).eps * size


@dataclass(frozen=True)
class Eigenpairs:
    """`values` theta (k,), outermost first, and `residuals` |M v - theta v| (k,), float64 on the CPU; `vectors` (k, n),
    unit rows. An eigenvalue of M is as near to each theta as the residual says, and mostly far nearer."""

    values: Tensor
    residuals: Tensor
    vectors: Tensor


@dataclass(frozen=True)
class Outer:
    """Both ends of a spectrum, and the number of products that they took."""

    largest: Eigenpairs
    smallest: Eigenpairs
    products: int


def outer_eigenpairs(
    product: Map, start: Tensor, *, largest: int, smallest: int, tol: float, most: int, generator: Generator
) -> Outer:
    """The `largest` and `smallest` many eigenpairs of M by block Lanczos from `start` (b, n), with multiplicities up to
    b; all n of them where fewer are there.

    It ends when the residual of each is at most `tol` times the largest |theta|, or after `most` products: then the
    residuals tell what has not converged.
    """
    space = KrylovSpace(product, start, most, generator)
    wanted = min(start.shape[1], largest + smallest)
    while True:
        space.grow(len(start))
        ritz = space.ritz()
        low, high = torch.arange(space.products)[:smallest], torch.arange(space.products).flip(0)[:largest]
        missed = ritz.residuals[torch.cat([low, high])] > tol * ritz.values.abs().max()
        if space.full or (space.products >= wanted and not missed.any()):
            break
    top, bottom = (
        Eigenpairs(ritz.values[end], ritz.residuals[end], space.vectors(ritz.weights[:, end])) for end in (high, low)
    )
    return Outer(top, bottom, space.products)
