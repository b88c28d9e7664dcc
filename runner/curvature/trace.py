"""The trace of a symmetric map from a given number of products."""

import math

import torch
from torch import Generator, Tensor

from runner.curvature.lanczos import Map, random_vectors
from runner.curvature.precision import full_precision
from runner.curvature.quadrature import mean_and_error

LEAST_PRODUCTS = 6


def hutch_plus_plus(
    product: Map, n: int, products: int, dtype: torch.dtype, device: torch.device, generator: Generator
) -> tuple[Tensor, Tensor]:
    """tr M and its standard error, from `products` products, at least 6; exact, with error 0, where n are allowed.

    Hutch++ (Meyer, Musco, Musco and Woodruff 2021): tr M = tr Q'MQ + tr (I - QQ')M(I - QQ') with Q an orthonormal basis
    of M times random vectors, which holds M's large eigenvalues. The first term is computed, the second is the mean of
    u'Mu over random u of length sqrt(n - q) orthogonal to Q. Unbiased, and so is the squared error, since these draws
    are independent of each other and of Q.
    """
    if products >= n:
        return _partial_trace(product, torch.eye(n, dtype=dtype, device=device)), torch.zeros((), dtype=torch.float64)
    q = products // 3
    Q = _range(product, random_vectors(q, n, dtype, device, generator))
    draws = []
    for u in random_vectors(products - 2 * q, n, dtype, device, generator):
        with full_precision():
            u = u - (Q @ u) @ Q
        u *= math.sqrt(n - q) / torch.linalg.vector_norm(u)
        draws.append(torch.dot(u, product(u)).double().cpu())
    rest, error = mean_and_error(torch.stack(draws))
    return _partial_trace(product, Q) + rest, error


def _range(product: Map, vectors: Tensor) -> Tensor:
    """(q, n): orthonormal rows that span the images of the given ones, also where these are linearly dependent."""
    images = torch.stack([product(v) for v in vectors])
    with full_precision():
        return torch.linalg.qr(images.T)[0].T.contiguous()


def _partial_trace(product: Map, rows: Tensor) -> Tensor:
    """sum_i v_i'M v_i over orthonormal rows, float64 on the CPU."""
    return torch.stack([torch.dot(v, product(v)).double().cpu() for v in rows]).sum()
