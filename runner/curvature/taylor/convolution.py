"""Convolutions and transposed convolutions: y_k = W0 * x_k + W1 * x_{k-1} + W2 * x_{k-2} + b_k."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from runner.curvature.taylor.arithmetic import Coefficient, accumulate
from runner.curvature.taylor.context import current
from runner.curvature.taylor.registry import rule
from runner.curvature.taylor.tensor import series, tensor


def _laid_out(c: Coefficient) -> Coefficient:
    """Maps as the CPU's convolutions compute fastest: 1.1 to 2.5 times faster than from rows of pixels per channel."""
    if c is None or c.dim() != 4 or not current().channels_last:
        return c
    return c.contiguous(memory_format=torch.channels_last)


def convolve(function: Callable[..., Tensor], input: Any, weight: Any, bias: Any, *settings: Any) -> Tensor:
    """Separate convolutions: one over concatenated inputs costs the copies and is no faster."""
    x = [_laid_out(c) for c in series(input)]
    w, b = [_laid_out(c) for c in series(weight)], series(bias)
    y: list[Coefficient] = []
    for k in range(3):
        total: Coefficient = None
        for j in range(k + 1):
            x_i, w_j = x[k - j], w[j]
            if x_i is not None and w_j is not None:
                term = function(x_i, w_j, b[k] if total is None else None, *settings)
                total = accumulate(total, term)
        if total is None and b[k] is not None:  # only the bias moves
            total = b[k].view(-1, *[1] * (series(weight)[0].dim() - 2)).expand(y[0].shape)  # type: ignore[union-attr]
        y.append(total)
    return tensor(*y)  # type: ignore[arg-type]


def _forward(name: str) -> None:
    function = getattr(torch, name)

    @rule(name, in_place=False)
    def apply(
        input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
    ) -> Tensor:
        return convolve(function, input, weight, bias, stride, padding, dilation, groups)


def _transposed(name: str) -> None:
    function = getattr(torch, name)

    @rule(name, in_place=False)
    def apply(
        input: Any,
        weight: Any,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        dilation: Any = 1,
    ) -> Tensor:
        return convolve(function, input, weight, bias, stride, padding, output_padding, groups, dilation)


for _name in ("conv1d", "conv2d", "conv3d"):
    _forward(_name)
for _name in ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"):
    _transposed(_name)
