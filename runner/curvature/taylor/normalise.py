"""Normalisation layers, composed from mean, variance and reciprocal root (torch's nested forward mode is wrong there).

n = d r with d = x - mean x and r = (mean d^2 + eps)^(-1/2). With n0 = d0 r0, e1 = d1 r0, a_k = mean(n0 d_k) r0:
  r1 / r0 = -a1,  r2 / r0 = 3/2 a1^2 - 1/2 mean e1^2 - a2,  n_k = d_k r0 + d_{k-1} r1 + d_{k-2} r2.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from runner.curvature.taylor.arithmetic import Coefficient, add, multiply, plus_product
from runner.curvature.taylor.context import current
from runner.curvature.taylor.kernels import kernel
from runner.curvature.taylor.registry import rule
from runner.curvature.taylor.tensor import Series, series, tensor


def average(x: Tensor, dims: list[int]) -> Tensor:
    """The mean over `dims`, one after the other: a sum of sums loses less to rounding than one long sum."""
    for dim in reversed(dims):
        x = x.mean(dim, keepdim=True)
    return x


def ratios(n0: Tensor, d1: Coefficient, d2: Coefficient, r: Tensor, dims: list[int]) -> tuple[Coefficient, Coefficient]:
    """r1 / r0 and r2 / r0."""
    a2 = None if d2 is None else average(n0 * d2, dims) * r
    if d1 is None:
        return None, None if a2 is None else -a2
    a1 = average(n0 * d1, dims) * r
    e1 = d1 * r
    q2 = 1.5 * a1 * a1 - 0.5 * average(e1 * e1, dims)
    return -a1, q2 if a2 is None else q2 - a2


def standardise(
    x0: Tensor, x1: Coefficient, x2: Coefficient, dims: list[int], eps: float, centred: bool = True
) -> Series:
    """(x - mean) / sqrt(var + eps) over `dims`; without `centred` x / sqrt(mean x^2 + eps)."""
    d0, d1, d2 = (c if c is None or not centred else c - average(c, dims) for c in (x0, x1, x2))
    assert d0 is not None
    r = (average(d0 * d0, dims) + eps).rsqrt()
    n0 = d0 * r
    del d0
    q1, q2 = ratios(n0, d1, d2, r, dims)
    n2 = plus_product(plus_product(multiply(d2, r), d1, multiply(q1, r)), n0, q2)
    del d2
    return n0, plus_product(multiply(d1, r), n0, q1), n2


def affine(n: Series, g: Series, b: Series) -> Series:
    """g n + b; each coefficient of g and b broadcasts over n."""
    n0, n1, n2 = n
    del n  # what is not needed any more is freed at once: these passes are where a sweep holds most
    if g[0] is not None:
        n2 = plus_product(plus_product(multiply(n2, g[0]), n1, g[1]), n0, g[2])
        n1 = plus_product(multiply(n1, g[0]), n0, g[1])
        n0 = n0 * g[0]
    n0 = n0 if b[0] is None else n0 + b[0]
    return n0, _plus(n1, b[1], n0), _plus(n2, b[2], n0)


def _plus(y: Coefficient, b: Coefficient, like: Tensor) -> Coefficient:
    return b.expand(like.shape) if y is None and b is not None else add(y, b)


@kernel
def normalised(
    x0: Tensor,
    x1: Coefficient,
    x2: Coefficient,
    g0: Coefficient,
    g1: Coefficient,
    g2: Coefficient,
    b0: Coefficient,
    b1: Coefficient,
    b2: Coefficient,
    dims: list[int],
    eps: float,
    centred: bool = True,
) -> Series:
    return affine(standardise(x0, x1, x2, dims, eps, centred), (g0, g1, g2), (b0, b1, b2))  # type: ignore[arg-type]


@kernel
def scaled(
    x0: Tensor, x1: Coefficient, x2: Coefficient, g0: Coefficient, g1: Coefficient, g2: Coefficient,
    b0: Coefficient, b1: Coefficient, b2: Coefficient, mean: Tensor, r: Tensor,
) -> Series:  # fmt: skip
    """With fixed statistics: g (x - mean) r + b."""
    return affine(((x0 - mean) * r, multiply(x1, r), multiply(x2, r)), (g0, g1, g2), (b0, b1, b2))  # type: ignore[arg-type]


def per_channel(p: Any, shape: tuple[int, ...]) -> tuple[Coefficient, Coefficient, Coefficient]:
    """The coefficients of a weight or bias (C,), ready to broadcast."""
    return tuple(None if c is None else c.reshape(shape) for c in series(p))  # type: ignore[return-value]


def of_shape(y: Series, shape: Sequence[int]) -> Tensor:
    y0, y1, y2 = (None if c is None else c.reshape(shape) for c in y)
    assert y0 is not None
    return tensor(y0, y1, y2)


def channels_inside(x: Tensor) -> bool:
    if x.dim() != 4 or current().transformed:
        return False
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


@rule("batch_norm", in_place=False)
def batch_norm(
    input: Any,
    weight: Any,
    bias: Any,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = True,
) -> Tensor:
    """Statistics of the batch in training, else the running ones. Sums run over memory as it lies: (N, pixels, C) for
    channels last, else (N, C, pixels)."""
    x = series(input)
    n, channels = x[0].shape[:2]
    if channels_inside(x[0]):
        columns = [None if c is None else c.permute(0, 2, 3, 1).reshape(n, -1, channels) for c in x]
        shape: tuple[int, ...] = (channels,)
        dims = [0, 1]
    else:
        columns = [None if c is None else c.reshape(n, channels, -1) for c in x]
        shape, dims = (channels, 1), [0, 2]
    parameters = (*per_channel(weight, shape), *per_channel(bias, shape))
    if training:
        track(x[0], running_mean, running_var, momentum)
        y = normalised(*columns, *parameters, dims, eps)
    else:
        assert running_mean is not None
        assert running_var is not None
        y = scaled(*columns, *parameters, running_mean.view(shape), (running_var.view(shape) + eps).rsqrt())
    if channels_inside(x[0]):
        return of_shape(y, (n, *x[0].shape[2:], channels)).permute(0, 3, 1, 2)
    return of_shape(y, x[0].shape)


def track(x: Tensor, mean: Tensor | None, var: Tensor | None, momentum: float, by_sample: bool = False) -> None:
    """What a forward pass in training makes of the running `mean` and `var`, which the network may read later on."""
    if mean is None or var is None:
        return
    if not (by_sample or current().transformed):
        torch.batch_norm_update_stats(x, mean, var, momentum)
        return
    new_var, new_mean = torch.var_mean(x, [*([] if by_sample else [0]), *range(2, x.dim())])
    for old, new in ((mean, new_mean), (var, new_var)):
        old.mul_(1 - momentum).add_(new.mean(0) if by_sample else new, alpha=momentum)


@rule("layer_norm", in_place=False)
def layer_norm(
    input: Any,
    normalized_shape: Any,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Tensor:
    return _by_rows(input, normalized_shape, weight, bias, eps, True)


@rule("rms_norm", in_place=False)
def rms_norm(input: Any, normalized_shape: Any, weight: Any = None, eps: float | None = None) -> Tensor:
    eps = torch.finfo(series(input)[0].dtype).eps if eps is None else eps
    return _by_rows(input, normalized_shape, weight, None, eps, False)


def _by_rows(input: Any, normalized_shape: Any, weight: Any, bias: Any, eps: float, centred: bool) -> Tensor:
    """The last dimensions, each sample by itself. The results lie in memory as torch's do: random draws follow it."""
    x0 = series(input)[0]
    size = math.prod(normalized_shape)
    if centred or x0.is_contiguous():
        dims, shape = [1], (size,)
        x = [None if c is None else c.contiguous().view(-1, size) for c in series(input)]
    else:
        dims, shape = list(range(-len(normalized_shape), 0)), tuple(normalized_shape)
        x = list(series(input))
    y = normalised(*x, *per_channel(weight, shape), *per_channel(bias, shape), dims, eps, centred)
    return of_shape(y, x0.shape)


@rule("group_norm", in_place=False)
def group_norm(
    input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, cudnn_enabled: bool = True
) -> Tensor:
    """Groups (N, G, C/G, pixels), each sample and group standardised by itself."""
    x0 = series(input)[0]
    n, channels = x0.shape[:2]
    split = (n, num_groups, channels // num_groups, -1)
    x = [None if c is None else c.contiguous().view(split) for c in series(input)]
    shape = (num_groups, channels // num_groups, 1)
    y = normalised(*x, *per_channel(weight, shape), *per_channel(bias, shape), [2, 3], eps)
    return of_shape(y, x0.shape)


@rule("instance_norm", in_place=False)
def instance_norm(
    input: Any,
    weight: Any,
    bias: Any,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = True,
) -> Tensor:
    if use_input_stats:
        x0 = series(input)[0]
        track(x0, running_mean, running_var, momentum, by_sample=True)
        return group_norm(input, x0.shape[1], weight, bias, eps)
    return batch_norm(input, weight, bias, running_mean, running_var, False, momentum, eps)
