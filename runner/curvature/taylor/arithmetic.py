"""Sums and products of coefficients, None = 0; and functions that are linear in each argument."""

from collections.abc import Callable, Sequence
from itertools import product as combinations
from typing import Any

import torch
from torch import Tensor

from runner.curvature.taylor.context import current
from runner.curvature.taylor.tensor import Series, series, tensor

Coefficient = Tensor | None


def accumulate(total: Coefficient, term: Tensor) -> Tensor:
    """total + term, written into `total`, which must be the caller's own and of the sum's shape."""
    if total is None:
        return term
    return total + term if current().transformed else total.add_(term)


def add(a: Coefficient, b: Coefficient) -> Coefficient:
    if a is None or b is None:
        return b if a is None else a
    return a + b


def multiply(a: Coefficient, b: Any) -> Coefficient:
    return None if a is None or b is None else a * b


def plus_product(total: Coefficient, a: Coefficient, b: Coefficient) -> Coefficient:
    """total + a b"""
    if a is None or b is None:
        return total
    return a * b if total is None else torch.addcmul(total, a, b)


def multiply_add(total: Coefficient, a: Coefficient, b: Coefficient, scale: float = 1.0) -> Coefficient:
    """total + scale a b, written into `total`, which must be the caller's own and of the sum's shape."""
    if a is None or b is None:
        return total
    if total is None:
        return a * b if scale == 1 else (a * b) * scale
    if current().transformed:
        return total + (a * b if scale == 1 else (a * b) * scale)
    return total.addcmul_(a, b, value=scale)


def multilinear(function: Callable[..., Tensor], arguments: Sequence[Any]) -> Series:
    """The coefficients of function(a, b, …), linear in each: f_k = sum over i + j + … = k of f(a_i, b_j, …)."""
    coefficients = [series(argument) for argument in arguments]
    found: list[Coefficient] = [None, None, None]
    for orders in combinations(range(3), repeat=len(coefficients)):
        chosen = [c[k] for c, k in zip(coefficients, orders, strict=True)]
        if sum(orders) < 3 and all(c is not None for c in chosen):
            found[sum(orders)] = accumulate(found[sum(orders)], function(*chosen))
    return found[0], found[1], found[2]  # type: ignore[return-value]


def multilinear_tensor(function: Callable[..., Tensor], *arguments: Any) -> Tensor:
    return tensor(*multilinear(function, arguments))
