"""The trace and the Frobenius norm of a symmetric map from a given number of products."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from runner.curvature.lanczos import Map, random_vectors
from runner.curvature.precision import full_precision
from runner.curvature.quadrature import mean_and_error

LEAST_PRODUCTS = 6


class Estimates(NamedTuple):
    """tr M and |M|_F with their standard errors, 0-d float64 on the CPU."""

    trace: Tensor
    trace_se: Tensor
    frobenius: Tensor
    frobenius_se: Tensor


def hutch_plus_plus(
    product: Map, n: int, products: int, dtype: torch.dtype, device: torch.device, generator: Generator
) -> Estimates:
    """tr M and |M|_F = sqrt(tr M^2) with standard errors, from the same `products` products, at least 6; exact, with
    error 0, where n are allowed.

    Hutch++ (Meyer, Musco, Musco and Woodruff 2021): tr A = tr Q'AQ + tr (I - QQ')A(I - QQ') with Q an orthonormal basis
    of M times random vectors, which holds M's large eigenvalues. The first term is computed, the second is the mean of
    u'Au over random u of length sqrt(n - q) orthogonal to Q; v'Mv and v'M^2 v = |Mv|^2 come from one product. Unbiased
    for tr M and tr M^2, and so are the squared errors, since these draws are independent of each other and of Q. The
    root of the second has its error by the first-order rule, se(|M|_F) = se(tr M^2) / (2 |M|_F).
    """
    if products >= n:
        exact = _forms(product, torch.eye(n, dtype=dtype, device=device)).sum(1)
        return _estimates(exact, torch.zeros_like(exact))
    q = products // 3
    Q = _range(product, random_vectors(q, n, dtype, device, generator))
    draws = _forms(product, _beside(Q, random_vectors(products - 2 * q, n, dtype, device, generator)))
    rest, errors = mean_and_error(draws.T)
    return _estimates(_forms(product, Q).sum(1) + rest, errors)


def _estimates(traces: Tensor, errors: Tensor) -> Estimates:
    """From tr M and tr M^2, (2,), and their standard errors."""
    frobenius = traces[1].sqrt()
    return Estimates(traces[0], errors[0], frobenius, errors[1] / (2 * frobenius) if frobenius else errors[1])


def _range(product: Map, vectors: Tensor) -> Tensor:
    """(q, n): orthonormal rows that span the images of the given ones, also where these are linearly dependent."""
    images = torch.stack([product(v) for v in vectors])
    with full_precision():
        return torch.linalg.qr(images.T)[0].T.contiguous()


def _beside(Q: Tensor, vectors: Tensor) -> Iterable[Tensor]:
    """The parts of the vectors orthogonal to the rows of Q, at the length that a unit for each free dimension makes."""
    for u in vectors:
        with full_precision():
            u = u - (Q @ u) @ Q
        yield u * (math.sqrt(len(u) - len(Q)) / torch.linalg.vector_norm(u))


def _forms(product: Map, vectors: Iterable[Tensor]) -> Tensor:
    """v'Mv and |Mv|^2 of each vector, (2, vectors), float64 on the CPU."""
    found = []
    for v in vectors:
        Mv = product(v)
        square = torch.linalg.vector_norm(Mv, dtype=torch.float64).square()
        found.append(torch.stack([torch.dot(v, Mv).double(), square]).cpu())
    return torch.stack(found, 1)
