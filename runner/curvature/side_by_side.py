"""Functions of one network, computed for several at once."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class FeaturesFirst(TorchFunctionMode):
    """Linear layers as W x' instead of x W': a batch of small products whose long side, the samples, lies in memory as
    the kernels go through it takes a third to a fifth of the time on a CPU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.linear and not types:
            return _linear(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if input.dim() != 2:
        return F.linear(input, weight, bias)
    y = torch.matmul(weight, input.mT)
    return (y if bias is None else y + bias[:, None].to(y)).mT  # under autocast y is in bf16, the bias is not


def side_by_side(function: Callable[..., Any], *dims: int | None) -> Callable[..., Any]:
    """`function` over networks that are stacked: arguments with 0 in `dims` are each network's own, those with None are
    the same for all. Random draws fail: they would not be those of a network alone."""
    mapped = torch.func.vmap(function, in_dims=dims, randomness="error")

    @wraps(function)
    def call(*args: Any) -> Any:
        with FeaturesFirst():
            return mapped(*args)

    return call
