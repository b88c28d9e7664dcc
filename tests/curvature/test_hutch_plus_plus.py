"""Hutch++ against traces and Frobenius norms that are known."""

import pytest
import torch
from torch import Tensor

from runner.curvature.trace import Estimates, hutch_plus_plus

CPU = torch.device("cpu")


def matrix(values: Tensor) -> Tensor:
    n = len(values)
    Q = torch.linalg.qr(torch.randn(n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
    return Q @ torch.diag(values.double()) @ Q.T


def estimate(M: Tensor, products: int, seed: int = 0) -> tuple[Estimates, int]:
    """What is found, and how many products were made."""
    calls = []

    def product(v: Tensor) -> Tensor:
        calls.append(1)
        return M @ v

    generator = torch.Generator().manual_seed(seed)
    return hutch_plus_plus(product, len(M), products, M.dtype, CPU, generator), len(calls)


BULK = torch.cat([0.1 * torch.randn(150, generator=torch.Generator().manual_seed(1)), torch.tensor([5.0, 3.0, -2.0])])


@pytest.mark.parametrize("products", [6, 7, 8, 30, 152])
def test_the_number_of_products_is_the_one_allowed(products: int) -> None:
    for values in (BULK, torch.zeros(153), torch.ones(153)):
        assert estimate(matrix(values), products)[1] == products


@pytest.mark.parametrize("n", [1, 2, 6, 30])
def test_exact_where_as_many_products_are_allowed_as_dimensions(n: int) -> None:
    M = matrix(BULK[-n:])
    found, calls = estimate(M, 30)
    assert found.trace.item() == pytest.approx(M.trace().item(), rel=1e-12)
    assert found.frobenius.item() == pytest.approx(torch.linalg.matrix_norm(M).item(), rel=1e-12)
    assert (found.trace_se, found.frobenius_se, calls) == (0, 0, n)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exact_for_low_rank_and_for_multiples_of_the_identity(dtype: torch.dtype) -> None:
    close = 1e3 * torch.finfo(dtype).eps
    for values, trace, square in (
        (torch.cat([torch.zeros(90), BULK[-3:]]), 6.0, 38.0),
        (torch.full((93,), 2.0), 186.0, 372.0),
    ):
        found, _ = estimate(matrix(values).to(dtype), 15)
        assert found.trace.item() == pytest.approx(trace, rel=close)
        assert found.frobenius.item() == pytest.approx(square**0.5, rel=close)
        assert found.trace_se <= close * trace
        assert found.frobenius_se <= close * square
    assert all(number == 0 for number in estimate(torch.zeros(93, 93, dtype=dtype), 15)[0])


def test_unbiased_with_errors_that_cover() -> None:
    """Over 1000 seeds. 10 draws: Student's t with 9 degrees of freedom is within 2.26 in 95 % of cases; those of
    the norm have heavy tails, from the seeds whose Q misses an eigenvalue, and the root's bias is far smaller."""
    M = matrix(BULK)
    truths = (M.trace().item(), torch.linalg.matrix_norm(M).item())
    found = torch.tensor([estimate(M, 30, seed)[0] for seed in range(1000)]).double()
    for column, truth, close in zip((0, 2), truths, (0.1, 0.2), strict=True):
        values, errors = found[:, column], found[:, column + 1]
        assert values.mean().item() == pytest.approx(truth, abs=4 * (values.std() / 1000**0.5).item())
        assert errors.square().mean().sqrt().item() == pytest.approx(values.std().item(), rel=close)
        assert 0.9 <= ((values - truth).abs() <= 2.26 * errors).double().mean() <= 0.98


def test_outliers_do_not_widen_it() -> None:
    """Where Hutchinson's own estimate with as many products has a standard deviation of sqrt(2) |M|_F / sqrt(30)."""
    M = matrix(BULK)
    assert estimate(M, 30)[0].trace_se < 0.6 * 2**0.5 * torch.linalg.matrix_norm(M).item() / 30**0.5
