"""The activations of torch.nn. At a kink the slope is the one autograd takes, and the second derivative is 0."""

import math
from typing import Any

import torch
from torch import Tensor

from runner.curvature.taylor.context import current, ensure_original_layout
from runner.curvature.taylor.kernels import kernel
from runner.curvature.taylor.pointwise import Derivatives, in_storage_order, pointwise
from runner.curvature.taylor.registry import rule
from runner.curvature.taylor.tensor import Series, Taylor, series, tensor

_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946


def rectify(x0: Tensor, x1: Tensor | None, x2: Tensor | None) -> Series:
    """relu: x_k where x0 > 0. Torch's backward kernel is that mask in one pass."""
    mask = torch.ops.aten.threshold_backward
    return x0.relu(), None if x1 is None else mask(x1, x0, 0), None if x2 is None else mask(x2, x0, 0)


_rectify = kernel(rectify)


@rule("relu")
def relu(x: Taylor) -> Tensor:
    return tensor(*(in_storage_order(_rectify, x.c) if current().compiled else rectify(*x.c)))


@pointwise("leaky_relu")
def leaky_relu(x: Tensor, negative_slope: float = 0.01) -> Derivatives:
    slope = torch.where(x > 0, torch.ones_like(x), negative_slope)
    return x * slope, slope, None


@pointwise("hardtanh")
def hardtanh(x: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Derivatives:
    return x.clamp(min_val, max_val), ((x > min_val) & (x < max_val)).to(x.dtype), None


@pointwise("relu6")
def relu6(x: Tensor) -> Derivatives:
    return hardtanh(x, 0.0, 6.0)


@pointwise("threshold")
def threshold(x: Tensor, threshold: float, value: float) -> Derivatives:
    return torch.where(x > threshold, x, value), (x > threshold).to(x.dtype), None


@pointwise("hardshrink")
def hardshrink(x: Tensor, lambd: float = 0.5) -> Derivatives:
    outside = ((x > lambd) | (x < -lambd)).to(x.dtype)
    return x * outside, outside, None


@pointwise("softshrink")
def softshrink(x: Tensor, lambd: float = 0.5) -> Derivatives:
    outside = ((x > lambd) | (x < -lambd)).to(x.dtype)
    return (x - x.sgn() * lambd) * outside, outside, None


@pointwise("hardsigmoid")
def hardsigmoid(x: Tensor) -> Derivatives:
    return (x / 6 + 0.5).clamp(0, 1), ((x > -3) & (x < 3)).to(x.dtype) / 6, None


@pointwise("hardswish")
def hardswish(x: Tensor) -> Derivatives:
    inside = ((x > -3) & (x < 3)).to(x.dtype)
    d1 = inside * (x / 3 + 0.5) + (x >= 3)
    return x * (x / 6 + 0.5).clamp(0, 1), d1, inside / 3


@pointwise("gelu")
def gelu(x: Tensor, *, approximate: str = "none") -> Derivatives:
    if approximate == "tanh":
        return _gelu_tanh(x)
    phi = (x * x * -0.5).exp() * (1 / math.sqrt(2 * math.pi))
    cdf = (x * math.sqrt(0.5)).erf() * 0.5 + 0.5
    return x * cdf, cdf + x * phi, phi * (2 - x * x)


def _gelu_tanh(x: Tensor) -> Derivatives:
    c, a = math.sqrt(2 / math.pi), 0.044715
    t = (c * (x + a * x * x * x)).tanh()
    u1, u2, s = c * (1 + 3 * a * x * x), 6 * a * c * x, 1 - t * t
    return 0.5 * x * (1 + t), 0.5 * (1 + t) + 0.5 * x * s * u1, s * (u1 + 0.5 * x * (u2 - 2 * t * u1 * u1))


@pointwise("silu")
def silu(x: Tensor) -> Derivatives:
    s = x.sigmoid()
    d = s * (1 - s)
    return x * s, s + x * d, d * (2 + x * (1 - 2 * s))


@pointwise("mish")
def mish(x: Tensor) -> Derivatives:
    t, s = torch.nn.functional.softplus(x).tanh(), x.sigmoid()
    r = 1 - t * t
    t1 = r * s
    t2 = r * s * (1 - s) - 2 * t * t1 * s
    return x * t, t + x * t1, 2 * t1 + x * t2


@pointwise("softplus")
def softplus(x: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Derivatives:
    s = (x * beta).sigmoid()
    above = x * beta > threshold
    d2 = torch.where(above, 0.0, beta * s * (1 - s))
    return torch.nn.functional.softplus(x, beta, threshold), torch.where(above, 1.0, s), d2


@pointwise("log_sigmoid")
def log_sigmoid(x: Tensor) -> Derivatives:
    s = x.sigmoid()
    return torch.nn.functional.logsigmoid(x), 1 - s, -s * (1 - s)


@pointwise("elu")
def elu(x: Tensor, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Derivatives:
    a = alpha * scale
    grown = a * (x * input_scale).clamp(max=0).exp()
    positive = x > 0
    return (
        torch.where(positive, x * scale, a * (x * input_scale).clamp(max=0).expm1()),
        torch.where(positive, scale, grown * input_scale),
        torch.where(x >= 0, 0.0, grown * input_scale**2),
    )


@pointwise("selu")
def selu(x: Tensor) -> Derivatives:
    return elu(x, _SELU_ALPHA, _SELU_SCALE)


@pointwise("celu")
def celu(x: Tensor, alpha: float = 1.0) -> Derivatives:
    return elu(x, alpha, 1.0, 1 / alpha)


@rule("prelu", "_prelu_kernel")
def prelu(x: Any, weight: Any) -> Tensor:
    """x where x > 0, else weight x, with one weight, or one for each channel."""
    if isinstance(weight, Tensor) and weight.numel() > 1 and x.dim() > 1 and weight.dim() == 1:
        weight = weight.view(1, -1, *[1] * (x.dim() - 2))
    return torch.where(x > 0, x, weight * x)


@rule("glu")
def glu(x: Taylor, dim: int = -1) -> Tensor:
    a, b = x.chunk(2, dim)
    return a * b.sigmoid()


@rule("rrelu")
def rrelu(
    x: Taylor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, generator: Any = None
) -> Tensor:
    """In training a slope is drawn for every negative element; torch's kernel notes the slopes it drew."""
    if not training:
        return torch.nn.functional.leaky_relu(x, (lower + upper) / 2)
    x0, x1, x2 = series(x)
    ensure_original_layout(x0)
    slope = torch.empty_like(x0)
    y0 = torch.ops.aten.rrelu_with_noise(x0, slope, lower, upper, True, generator)
    return tensor(y0, *(None if k is None else k * slope for k in (x1, x2)))
