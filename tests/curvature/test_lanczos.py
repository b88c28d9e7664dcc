"""Block Lanczos on matrices whose spectra are known: values, residuals, multiplicities, and where it ends."""

from collections.abc import Callable

import pytest
import scipy.sparse
import scipy.sparse.linalg
import torch
from torch import Tensor

from runner.curvature.lanczos import KrylovSpace, Outer, outer_eigenpairs, random_vectors

CPU = torch.device("cpu")
SPECTRA = {
    "distinct": [-3.0, -2.0, -1.5, *(0.01 * i for i in range(40)), 2.0, 4.0, 7.0],
    "multiple": [-2.0] * 3 + [0.5] * 30 + [5.0] * 3 + [6.0] * 2,
    "cluster": [*(1e-3 * i for i in range(30)), 9.99, 9.999, 9.9999, 10.0],
    "rank 3": [0.0] * 60 + [1.0, 2.0, 3.0],
    "zero": [0.0] * 20,
    "identity": [1.0] * 20,
    "below zero": [-5.0, -4.0, -3.0, *(-1 - 0.01 * i for i in range(30))],
    "one": [3.0],
    "two": [-1.0, 2.0],
    "fewer than sought": [1.0, 2.0, 3.0, 4.0],
    "tiny": [1e-14 * i for i in range(30)],
    "huge": [1e12 * i for i in range(30)],
}


def symmetric(spectrum: list[float], seed: int = 0) -> Tensor:
    """A matrix with these eigenvalues along random directions."""
    generator = torch.Generator().manual_seed(seed)
    Q = torch.linalg.qr(torch.randn(len(spectrum), len(spectrum), dtype=torch.float64, generator=generator))[0]
    return Q @ torch.diag(torch.tensor(spectrum, dtype=torch.float64)) @ Q.T


def counted(M: Tensor) -> tuple[Callable[[Tensor], Tensor], list[int]]:
    calls: list[int] = []

    def product(v: Tensor) -> Tensor:
        calls.append(1)
        return M @ v

    return product, calls


def search(
    product: Callable[[Tensor], Tensor],
    n: int,
    k: int = 5,
    *,
    width: int | None = None,
    tol: float = 1e-8,
    most: int = 1000,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    known: Tensor | None = None,
) -> Outer:
    generator = torch.Generator().manual_seed(seed)
    start = random_vectors(width or min(k, n), n, dtype, CPU, generator)
    start = start if known is None else start + known
    return outer_eigenpairs(product, start, largest=k, smallest=k, tol=tol, most=most, generator=generator)


@pytest.mark.parametrize("spectrum", SPECTRA.values(), ids=SPECTRA)
@pytest.mark.parametrize("k", [1, 2, 5])
def test_known_spectra(spectrum: list[float], k: int) -> None:
    M, n = symmetric(spectrum), len(spectrum)
    product, calls = counted(M)
    found = search(product, n, k)
    expected, scale = torch.tensor(sorted(spectrum), dtype=torch.float64), max(map(abs, spectrum))
    assert found.products == len(calls) <= n
    for pairs, values in ((found.largest, expected.flip(0)[:k]), (found.smallest, expected[:k])):
        assert torch.allclose(pairs.values, values, rtol=0, atol=1e-8 * scale)
        explicit = torch.linalg.vector_norm(pairs.vectors @ M - pairs.values[:, None] * pairs.vectors, dim=1)
        assert torch.allclose(pairs.residuals, explicit, rtol=1e-6, atol=1e-13 * scale)
        assert (explicit <= 1.001e-8 * scale).all()
        identity = torch.eye(len(values), dtype=torch.float64)
        assert torch.allclose(pairs.vectors @ pairs.vectors.T, identity, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_against_arpack(dtype: torch.dtype) -> None:
    n = 3000
    generator = torch.Generator().manual_seed(1)
    diagonal = torch.randn(n, dtype=torch.float64, generator=generator)
    U = torch.randn(n, 4, dtype=torch.float64, generator=generator) / n**0.5
    sizes = torch.tensor([20.0, 12.0, -9.0, 6.0], dtype=torch.float64)

    def product(v: Tensor) -> Tensor:
        return diagonal.to(v) * v + U.to(v) @ (sizes.to(v) * (U.to(v).T @ v))

    matrix = scipy.sparse.linalg.LinearOperator(
        (n, n), matvec=lambda v: product(torch.from_numpy(v.flatten())).numpy(), dtype=float
    )
    found = search(product, n, 4, tol=1e-4, dtype=dtype)
    for pairs, which in ((found.largest, "LA"), (found.smallest, "SA")):
        expected = sorted(scipy.sparse.linalg.eigsh(matrix, 4, which=which, tol=1e-12, return_eigenvectors=False))
        expected = expected[::-1] if which == "LA" else expected
        assert pairs.values.tolist() == pytest.approx(expected, rel=1e-6 if dtype == torch.float64 else 1e-5)
    assert found.products < 400


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_ghosts(dtype: torch.dtype) -> None:
    """As many steps as there are dimensions, long after the outer eigenvalues have converged: each comes once."""
    spectrum = [100.0, 50.0, -30.0, *(0.01 * i for i in range(150))]
    M = symmetric(spectrum).to(dtype)
    space = KrylovSpace(M.mv, random_vectors(1, len(spectrum), dtype, CPU, torch.Generator().manual_seed(0)), 1000)
    space.grow(1000)
    assert space.products == len(spectrum)
    expected = torch.tensor(sorted(spectrum), dtype=torch.float64)
    assert torch.allclose(space.ritz().values, expected, rtol=0, atol=1e3 * torch.finfo(dtype).eps)


def test_a_narrow_block_would_miss_copies() -> None:
    """Why there are as many vectors a block as eigenvalues sought: one start vector sees one copy of each."""
    M = symmetric(SPECTRA["multiple"])
    space = KrylovSpace(M.mv, random_vectors(1, len(M), M.dtype, CPU, torch.Generator().manual_seed(0)), len(M))
    space.grow(len(M))
    assert space.full
    assert space.ritz().values.tolist() == pytest.approx([-2.0, 0.5, 5.0, 6.0])


def test_an_invariant_space_goes_on_from_a_fresh_vector() -> None:
    """Of start vectors inside a small invariant space, two of them the same."""
    M = torch.diag(torch.arange(30, dtype=torch.float64))
    start = torch.eye(30, dtype=torch.float64)[[3, 4, 3]]
    generator = torch.Generator().manual_seed(0)
    found = outer_eigenpairs(M.mv, start, largest=3, smallest=3, tol=1e-10, most=30, generator=generator)
    assert found.largest.values.tolist() == pytest.approx([29, 28, 27])
    assert found.smallest.values.tolist() == pytest.approx([0, 1, 2], abs=1e-9)


def test_what_has_not_converged_shows_in_the_residuals() -> None:
    M = torch.diag(torch.linspace(0, 1, 2000, dtype=torch.float64))
    found = search(M.mv, 2000, 3, most=30, tol=1e-6)
    assert found.products == 30
    for pairs in (found.largest, found.smallest):
        explicit = torch.linalg.vector_norm(pairs.vectors @ M - pairs.values[:, None] * pairs.vectors, dim=1)
        assert torch.allclose(pairs.residuals, explicit, rtol=1e-8)
        assert (explicit > 1e-6).all()


def test_a_known_start_saves_products() -> None:
    spectrum = [-3.0, -2.0, *(0.001 * i for i in range(800)), 4.0, 5.0, 7.0]
    M, E = symmetric(spectrum), symmetric([0.001 * (-1) ** i for i in range(len(spectrum))], seed=1)
    cold = search(M.mv, len(M), 2, tol=1e-5)
    near = search((M + E).mv, len(M), 2, tol=1e-5, known=cold.largest.vectors + cold.smallest.vectors)
    anew = search((M + E).mv, len(M), 2, tol=1e-5)
    assert near.largest.values.tolist() == pytest.approx(anew.largest.values.tolist(), abs=1e-7)
    assert near.smallest.values.tolist() == pytest.approx(anew.smallest.values.tolist(), abs=1e-7)
    assert near.products < 0.8 * anew.products


@pytest.mark.parametrize("seed", range(3))
def test_a_known_start_misses_nothing_new(seed: int) -> None:
    """The old eigenvectors are still exact ones, but larger eigenvalues have come up along directions orthogonal to
    them: two copies of the same, and one barely outside of what was known."""
    spectrum = [0.001 * i for i in range(900)] + [2.0, 3.0, 4.0]
    old = search(torch.diag(torch.tensor(spectrum).double()).mv, len(spectrum), 3)
    for place, value in ((100, 5.0), (200, 5.0), (300, 4.1), (400, -1.0)):
        spectrum[place] = value
    known = torch.nn.functional.normalize(old.largest.vectors + old.smallest.vectors, dim=1)
    found = search(torch.diag(torch.tensor(spectrum).double()).mv, len(spectrum), 3, tol=1e-3, seed=seed, known=known)
    assert found.largest.values.tolist() == pytest.approx([5.0, 5.0, 4.1], abs=1e-4)
    assert found.smallest.values[0].item() == pytest.approx(-1.0, abs=1e-4)


def test_the_same_seed_gives_the_same_bits() -> None:
    M = symmetric(SPECTRA["distinct"])
    one, other = search(M.mv, len(M)), search(M.mv, len(M))
    assert torch.equal(one.largest.values, other.largest.values)
    assert torch.equal(one.smallest.vectors, other.smallest.vectors)


def test_products_that_are_not_finite_give_nan() -> None:
    found = search(lambda v: v * float("inf"), 10, 2)
    assert found.largest.values.isnan().all()
    assert found.smallest.residuals.isnan().all()


def test_random_vectors_are_unit_and_independent_of_the_rest() -> None:
    rows = random_vectors(4, 1000, torch.float32, CPU, torch.Generator().manual_seed(3))
    assert torch.allclose(rows @ rows.T, torch.eye(4), atol=0.15)
    assert torch.allclose(rows.norm(dim=1), torch.ones(4))
    assert torch.equal(rows, random_vectors(4, 1000, torch.float32, CPU, torch.Generator().manual_seed(3)))
