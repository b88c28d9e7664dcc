"""Stochastic Lanczos quadrature against dense functions of matrices."""

import pytest
import torch
from torch import Tensor

from runner.curvature.lanczos import random_vectors
from runner.curvature.quadrature import (
    Quadrature,
    lanczos_quadrature,
    mean_and_error,
    moment,
    share_below_zero,
)

CPU = torch.device("cpu")


def matrix(n: int = 200, nulls: int = 60) -> Tensor:
    """Eigenvalues of both signs with outliers, and zero many times."""
    generator = torch.Generator().manual_seed(0)
    Q = torch.linalg.qr(torch.randn(n, n, dtype=torch.float64, generator=generator))[0]
    values = 0.1 * torch.randn(n, dtype=torch.float64, generator=generator)
    values[:3], values[3 : 3 + nulls] = torch.tensor([3.0, 2.0, -1.0], dtype=torch.float64), 0
    return Q @ torch.diag(values) @ Q.T


def vectors(count: int, n: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return random_vectors(count, n, dtype, CPU, torch.Generator().manual_seed(seed))


def rules(M: Tensor, count: int, steps: int, seed: int = 0) -> list[Quadrature]:
    return [lanczos_quadrature(M.mv, v, steps) for v in vectors(count, len(M), seed, M.dtype)]


@pytest.mark.parametrize("steps", [1, 2, 7, 30])
def test_polynomials_up_to_degree_2m_minus_1(steps: int) -> None:
    M, v = matrix(), vectors(1, 200)[0]
    rule = lanczos_quadrature(M.mv, v, steps)
    assert len(rule.nodes) == len(rule.weights) == steps
    assert rule.weights.sum().item() == pytest.approx(1, abs=1e-13)
    assert (rule.weights >= 0).all()
    u = v
    for power in range(1, min(2 * steps, 12)):
        u = M @ u
        assert moment(rule, power).item() == pytest.approx(torch.dot(v, u).item(), rel=1e-11, abs=1e-14)


def test_it_ends_where_the_space_is_invariant() -> None:
    """A matrix of rank 3 has four different eigenvalues, so four nodes do for every function of it."""
    Q = torch.linalg.qr(torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))[0]
    M, v = Q @ torch.diag(torch.tensor([1.0, 2.0, -3.0], dtype=torch.float64)) @ Q.T, vectors(1, 50)[0]
    rule = lanczos_quadrature(M.mv, v, 20)
    assert rule.exact
    assert rule.nodes.tolist() == pytest.approx([-3, 0, 1, 2], abs=1e-12)
    exponential = torch.dot(v, torch.linalg.matrix_exp(M) @ v)
    assert (rule.weights @ rule.nodes.exp()).item() == pytest.approx(exponential.item(), rel=1e-12)
    assert lanczos_quadrature(torch.zeros_like(M).mv, v, 20).nodes.tolist() == [0.0]


@pytest.mark.parametrize("steps", [40, 60, 1000])
def test_never_more_steps_than_dimensions(steps: int) -> None:
    M = matrix(40, nulls=1)
    (rule,) = rules(M, 1, steps)
    assert len(rule.nodes) == 40
    assert rule.exact
    assert torch.allclose(rule.nodes, torch.linalg.eigvalsh(M), atol=1e-12)


@pytest.mark.parametrize("steps", [5, 20, 50, 150])
@pytest.mark.parametrize("nulls", [1, 60])
def test_the_share_below_zero_is_between_its_bounds(steps: int, nulls: int) -> None:
    """Of each vector's own measure, known from the dense eigenvectors."""
    M = matrix(nulls=nulls)
    values, Q = torch.linalg.eigh(M)
    for v, rule in zip(vectors(10, 200), rules(M, 10, steps), strict=True):
        share = (Q.T @ v).square()[values < -1e-12].sum()
        low, high = share_below_zero(rule)
        assert low - 1e-12 <= share <= high + 1e-12
        assert rule.exact == (steps == 150 and nulls == 60) == (high == low)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_null_space_of_a_semidefinite_matrix_is_not_negative(dtype: torch.dtype) -> None:
    J = torch.randn(3, 60, dtype=dtype, generator=torch.Generator().manual_seed(0))
    for rule in rules(J.T @ J, 5, 20):
        assert share_below_zero(rule)[0].item() == 0
        assert rule.weights.sum().item() == pytest.approx(1, abs=1e-12)


def test_the_standard_error_covers() -> None:
    """Over 200 seeds of 8 vectors: Student's t with 7 degrees of freedom is within 2.36 in 95 % of cases."""
    M = matrix()
    for power in (1, 2):
        truth = torch.linalg.eigvalsh(M).pow(power).mean()
        inside = []
        for seed in range(200):
            draws = torch.stack([moment(rule, power) for rule in rules(M, 8, 2, seed)])
            mean, error = mean_and_error(draws)
            inside.append(bool((mean - truth).abs() <= 2.36 * error))
        assert 0.88 <= sum(inside) / len(inside) <= 0.99
