"""Functions of one tensor, element by element: y1 = phi' x1, y2 = phi' x2 + 1/2 phi'' x1^2."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from runner.curvature.taylor.arithmetic import multiply
from runner.curvature.taylor.context import current
from runner.curvature.taylor.kernels import kernel
from runner.curvature.taylor.registry import rule
from runner.curvature.taylor.tensor import Series, Taylor, tensor

# phi(x0), phi'(x0), phi''(x0); None = 0 everywhere
Derivatives = tuple[Tensor, Tensor, Tensor | None]


def chain(derivatives: Derivatives, x1: Tensor | None, x2: Tensor | None) -> Series:
    """The coefficients of phi(x), given phi and its derivatives at x0."""
    y0, d1, d2 = derivatives
    y1, y2 = multiply(x1, d1), multiply(x2, d1)
    if x1 is None or d2 is None:
        return y0, y1, y2
    curved = d2 * x1.square() * 0.5
    return y0, y1, curved if y2 is None else y2 + curved


def same_layout(c: Series) -> bool:
    return all(k is None or k.stride() == c[0].stride() for k in c)


def in_storage_order(function: Callable[..., Series], c: Series) -> Series:
    """An elementwise function applied to flat views of the coefficients, so that one kernel serves all shapes."""
    x0 = c[0]
    strides = x0.stride()
    order = sorted(range(x0.dim()), key=lambda d: (-strides[d], -x0.shape[d]))
    stored = x0.permute(order)
    if not (stored.is_contiguous() and same_layout(c)):
        return function(*c)
    flat = function(*(None if k is None else k.permute(order).view(-1) for k in c))
    back = sorted(range(x0.dim()), key=order.__getitem__)
    return tuple(None if k is None else k.view(stored.shape).permute(back) for k in flat)  # type: ignore[return-value]


def pointwise(*names: str) -> Callable[[Callable[..., Derivatives]], Callable[..., Derivatives]]:
    """Registers x0, … -> (phi, phi', phi'') as the rule of the torch functions of these names."""

    def decorate(derivatives: Callable[..., Derivatives]) -> Callable[..., Derivatives]:
        def formula(x0: Tensor, x1: Tensor | None, x2: Tensor | None, *parameters: Any, **named: Any) -> Series:
            return chain(derivatives(x0, *parameters, **named), x1, x2)

        run = kernel(formula)

        @rule(*names)
        def apply(x: Taylor, *parameters: Any, **named: Any) -> Tensor:
            if not current().compiled:
                return tensor(*formula(*x.c, *parameters, **named))
            return tensor(*in_storage_order(lambda *c: run(*c, *parameters, **named), x.c))

        return derivatives

    return decorate


@pointwise("exp")
def exp(x: Tensor) -> Derivatives:
    y = x.exp()
    return y, y, y


@pointwise("exp2")
def exp2(x: Tensor) -> Derivatives:
    y = x.exp2()
    return y, y * math.log(2), y * math.log(2) ** 2


@pointwise("expm1")
def expm1(x: Tensor) -> Derivatives:
    y = x.exp()
    return x.expm1(), y, y


def _logarithm(y: Tensor, x: Tensor, base: float = 1.0) -> Derivatives:
    d = 1 / x
    return y, d / base, d * d / -base


@pointwise("log")
def log(x: Tensor) -> Derivatives:
    return _logarithm(x.log(), x)


@pointwise("log2")
def log2(x: Tensor) -> Derivatives:
    return _logarithm(x.log2(), x, math.log(2))


@pointwise("log10")
def log10(x: Tensor) -> Derivatives:
    return _logarithm(x.log10(), x, math.log(10))


@pointwise("log1p")
def log1p(x: Tensor) -> Derivatives:
    return _logarithm(x.log1p(), x + 1)


@pointwise("sqrt")
def sqrt(x: Tensor) -> Derivatives:
    y = x.sqrt()
    return y, 0.5 / y, -0.25 / (x * y)


@pointwise("rsqrt")
def rsqrt(x: Tensor) -> Derivatives:
    y = x.rsqrt()
    return y, -0.5 * y / x, 0.75 * y / (x * x)


@pointwise("reciprocal")
def reciprocal(x: Tensor) -> Derivatives:
    y = x.reciprocal()
    return y, -y * y, 2 * y * y * y


@pointwise("square")
def square(x: Tensor) -> Derivatives:
    return x.square(), 2 * x, torch.full_like(x, 2.0)


@pointwise("sin")
def sin(x: Tensor) -> Derivatives:
    y = x.sin()
    return y, x.cos(), -y


@pointwise("cos")
def cos(x: Tensor) -> Derivatives:
    y = x.cos()
    return y, -x.sin(), -y


@pointwise("tan")
def tan(x: Tensor) -> Derivatives:
    y = x.tan()
    d = 1 + y * y
    return y, d, 2 * y * d


@pointwise("sinh")
def sinh(x: Tensor) -> Derivatives:
    y = x.sinh()
    return y, x.cosh(), y


@pointwise("cosh")
def cosh(x: Tensor) -> Derivatives:
    y = x.cosh()
    return y, x.sinh(), y


@pointwise("tanh")
def tanh(x: Tensor) -> Derivatives:
    y = x.tanh()
    d = 1 - y * y
    return y, d, -2 * y * d


@pointwise("asin", "arcsin")
def asin(x: Tensor) -> Derivatives:
    d = (1 - x * x).rsqrt()
    return x.asin(), d, x * d * d * d


@pointwise("acos", "arccos")
def acos(x: Tensor) -> Derivatives:
    d = (1 - x * x).rsqrt()
    return x.acos(), -d, -x * d * d * d


@pointwise("atan", "arctan")
def atan(x: Tensor) -> Derivatives:
    d = 1 / (1 + x * x)
    return x.atan(), d, -2 * x * d * d


@pointwise("erf")
def erf(x: Tensor) -> Derivatives:
    d = (-x * x).exp() * (2 / math.sqrt(math.pi))
    return x.erf(), d, -2 * x * d


@pointwise("erfc")
def erfc(x: Tensor) -> Derivatives:
    d = (-x * x).exp() * (-2 / math.sqrt(math.pi))
    return x.erfc(), d, -2 * x * d


@pointwise("sigmoid", "expit")
def sigmoid(x: Tensor) -> Derivatives:
    y = x.sigmoid()
    d = y * (1 - y)
    return y, d, d * (1 - 2 * y)


@pointwise("logit")
def logit(x: Tensor, eps: float | None = None) -> Derivatives:
    inside = x if eps is None else x.clamp(eps, 1 - eps)
    d = 1 / (inside * (1 - inside))
    d2 = d * d * (2 * inside - 1)
    if eps is None:
        return x.logit(), d, d2
    free = (x >= eps) & (x <= 1 - eps)
    return x.logit(eps), d * free, d2 * free


@pointwise("abs", "__abs__", "absolute")
def absolute(x: Tensor) -> Derivatives:
    return x.abs(), x.sgn(), None


@pointwise("frac")
def frac(x: Tensor) -> Derivatives:
    return x.frac(), torch.ones_like(x), None


def power(x: Tensor, n: float) -> Derivatives:
    """x^n for a number n. Where autograd multiplies by an exponent 0 it gives 0, also at x = 0."""
    if n == 2:
        return square(x)
    d1 = torch.zeros_like(x) if n == 0 else n * x.pow(n - 1)
    return x.pow(n), d1, None if n in (0, 1) else n * (n - 1) * x.pow(n - 2)
