"""Arithmetic of two tensors, and choosing between them element by element."""

from functools import cache
from typing import Any

import torch
from torch import Tensor

from runner.curvature.taylor.arithmetic import multilinear_tensor, multiply, multiply_add
from runner.curvature.taylor.pointwise import chain, power
from runner.curvature.taylor.registry import rule
from runner.curvature.taylor.tensor import Taylor, UnsupportedOperation, series, tensor, value


def _sum(a: Any, b: Any, alpha: Any = 1) -> Tensor:
    """a + alpha b; every coefficient has the shape of the sum."""
    a, b = series(a), series(b)
    y0 = torch.add(torch.as_tensor(a[0]) if not isinstance(a[0], Tensor) else a[0], b[0], alpha=alpha)
    return tensor(y0, *(_sum_of(p, q, alpha, y0) for p, q in zip(a[1:], b[1:], strict=True)))


def _sum_of(p: Tensor | None, q: Tensor | None, alpha: Any, like: Tensor) -> Tensor | None:
    if p is not None and q is not None:
        return torch.add(p, q, alpha=alpha)
    one = p if q is None else (q if alpha == 1 else q * alpha)
    if one is None:
        return None
    return one.to(like.dtype).expand(like.shape)


@rule("add", "__add__", "__radd__")
def add(input: Any, other: Any, *, alpha: Any = 1) -> Tensor:
    return _sum(input, other, alpha)


@rule("sub", "subtract", "__sub__")
def sub(input: Any, other: Any, *, alpha: Any = 1) -> Tensor:
    return _sum(input, other, -alpha)


@rule("rsub", "__rsub__", in_place=False)
def rsub(input: Any, other: Any, *, alpha: Any = 1) -> Tensor:
    return _sum(other, input, -alpha)


@rule("mul", "multiply", "__mul__", "__rmul__")
def mul(input: Any, other: Any) -> Tensor:
    return multilinear_tensor(torch.mul, input, other)


def quotient(a: Any, b: Any) -> Tensor:
    """q = a / b from q b = a: q_k = (a_k - sum over i < k of q_i b_{k-i}) / b0."""
    (a0, a1, a2), (b0, b1, b2) = series(a), series(b)
    r = 1 / b0
    q0 = a0 / b0
    q1 = multiply_add(multiply(a1, r), q0, multiply(b1, r), -1)
    q2 = multiply_add(multiply(a2, r), q1, multiply(b1, r), -1)
    return tensor(q0, q1, multiply_add(q2, q0, multiply(b2, r), -1))


@rule("div", "divide", "true_divide", "__truediv__", "__div__")
def div(input: Any, other: Any, *, rounding_mode: str | None = None) -> Tensor:
    if rounding_mode is not None:
        return torch.div(value(input), value(other), rounding_mode=rounding_mode)  # constant almost everywhere
    return quotient(input, other)


@rule("__rdiv__", "__rtruediv__", in_place=False)
def rdiv(a: Any, b: Any) -> Tensor:
    return quotient(b, a)


@rule("pow", "__pow__", "float_power")
def pow(input: Any, exponent: Any) -> Tensor:
    base = input
    if not isinstance(base, Taylor):
        return torch.exp(exponent * torch.log(torch.as_tensor(base, dtype=exponent.dtype, device=exponent.device)))
    if isinstance(exponent, Taylor):
        return torch.exp(exponent * torch.log(base))
    if isinstance(exponent, Tensor):
        return tensor(*chain(_powers(base.c[0], exponent), *base.c[1:]))
    return tensor(*chain(power(base.c[0], exponent), *base.c[1:]))


def _powers(x: Tensor, n: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x^n for a tensor of exponents; where a factor n or n - 1 is 0, autograd's derivative is 0."""
    d1 = torch.where(n == 0, 0.0, n * x.pow(torch.where(n == 0, 1.0, n - 1).to(x.dtype)))
    flat = (n == 0) | (n == 1)
    return x.pow(n), d1, torch.where(flat, 0.0, n * (n - 1) * x.pow(torch.where(flat, 1.0, n - 2).to(x.dtype)))


@rule("__rpow__", in_place=False)
def rpow(exponent: Any, base: Any) -> Tensor:
    return pow(base, exponent)


@rule("addcmul")
def addcmul(input: Any, tensor1: Any, tensor2: Any, *, value: Any = 1) -> Tensor:
    return input + (tensor1 * tensor2) * value


@rule("addcdiv")
def addcdiv(input: Any, tensor1: Any, tensor2: Any, *, value: Any = 1) -> Tensor:
    return input + (tensor1 / tensor2) * value


@rule("lerp")
def lerp(input: Any, end: Any, weight: Any) -> Tensor:
    return input + weight * (end - input)


@rule("hypot")
def hypot(input: Any, other: Any) -> Tensor:
    return (input * input + other * other).sqrt()


@rule("where", in_place=False)
def where(condition: Any, input: Any = None, other: Any = None) -> Any:
    if input is None:
        return torch.where(value(condition))
    if isinstance(condition, Tensor) and condition.dtype != torch.bool:
        raise UnsupportedOperation("torch.where", "its condition should be boolean")
    a, b = series(input), series(other)
    y0 = torch.where(value(condition), a[0], b[0])
    pairs = zip(a[1:], b[1:], strict=True)
    return tensor(y0, *(_chosen(value(condition), p, q, y0) for p, q in pairs))


def _chosen(condition: Tensor, p: Tensor | None, q: Tensor | None, like: Tensor) -> Tensor | None:
    """`like`: the value, which may be larger than the condition and what moves."""
    if p is None and q is None:
        return None
    zero = torch.zeros((), dtype=like.dtype, device=condition.device)
    return torch.where(condition, zero if p is None else p, zero if q is None else q).to(like.dtype).expand(like.shape)


@rule("masked_fill")
def masked_fill(x: Any, mask: Any, value: Any) -> Tensor:
    return torch.where(mask, value, x) if isinstance(value, Taylor) else _filled(x, mask, value)


def _filled(x: Taylor, mask: Tensor, number: Any) -> Tensor:
    rest = (None if k is None else k.masked_fill(mask, 0) for k in x.c[1:])
    return tensor(x.c[0].masked_fill(mask, number), *rest)


@cache
def _slope_at(kind: type[float] | type[Tensor]) -> float:
    """Of clamp at x = 0 = its bound, as autograd has it: versions of torch differ, and numbers and tensors. Not found
    out before it is needed: autograd's engine takes up the devices that are there at its first backward pass."""
    with torch._C._DisableFuncTorch(), torch.enable_grad():
        x = torch.zeros((), device="cpu", requires_grad=True)
        bound = 0.0 if kind is float else torch.zeros((), device="cpu")
        return float(torch.autograd.grad(x.clamp(min=bound), x)[0])


def _bounded(x: Any, low: Any, high: Any) -> Tensor:
    """clamp: the slope is 1 between the bounds."""
    if isinstance(low, Taylor) or isinstance(high, Taylor):
        raise UnsupportedOperation("torch.clamp", "its bounds depend on the weights")
    x0 = x.c[0]
    slope = torch.ones_like(x0)
    for bound, compare in ((low, torch.gt), (high, torch.lt)):
        if bound is not None:
            at = _slope_at(Tensor if isinstance(bound, Tensor) else float)
            inside = compare(x0, bound)
            slope = slope * (torch.where(x0 == bound, at, inside) if at else inside)
    return tensor(x0.clamp(low, high), *(multiply(k, slope) for k in x.c[1:]))


@rule("clamp", "clip")
def clamp(x: Any, min: Any = None, max: Any = None) -> Tensor:
    return _bounded(x, min, max)


@rule("clamp_min")
def clamp_min(x: Any, min: Any) -> Tensor:
    return _bounded(x, min, None)


@rule("clamp_max")
def clamp_max(x: Any, max: Any) -> Tensor:
    return _bounded(x, None, max)


def extreme(a: Any, b: Any, a_wins: Tensor) -> Tensor:
    """Elementwise maximum or minimum; where both are equal, each has half of the slope, as autograd has it."""
    return torch.where(value(a) == value(b), 0.5 * (a + b), torch.where(a_wins, a, b))


@rule("maximum", in_place=False)
def maximum(input: Any, other: Any) -> Tensor:
    return extreme(input, other, value(input) > value(other))


@rule("minimum", in_place=False)
def minimum(input: Any, other: Any) -> Tensor:
    return extreme(input, other, value(input) < value(other))


@rule("zero", in_place=True)
def zero(x: Taylor) -> Tensor:
    return torch.zeros_like(x.c[0])


@rule("fill", in_place=True)
def fill(x: Any, number: Any) -> Any:
    if isinstance(number, Taylor):
        return number.expand(x.shape)
    return torch.full_like(value(x), number if not isinstance(number, Tensor) else number.item())


@rule("copy", in_place=True)
def copy(x: Any, source: Any, non_blocking: bool = False) -> Any:
    return source.to(x.dtype).expand(x.shape) if isinstance(source, Tensor) else torch.full_like(value(x), source)
