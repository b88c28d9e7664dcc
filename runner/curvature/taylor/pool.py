"""Max pooling: every coefficient is taken where the maximum was found. (Average pooling is linear: shape.py.)"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from runner.curvature.taylor.registry import rule_for
from runner.curvature.taylor.shape import elementary
from runner.curvature.taylor.tensor import Taylor, tensor


def _taken(c: Tensor, index: Tensor, spatial: int) -> Tensor:
    """c (…, pixels in) at the flat positions `index` (…, pixels out)."""
    return c.flatten(-spatial).gather(-1, index.flatten(-spatial)).view(index.shape)


def pooled(function: Callable[..., Any], spatial: int, x: Taylor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    y0, index = function(x.c[0], *args, **kwargs)
    return tensor(y0, *(None if c is None else _taken(c, index, spatial) for c in x.c[1:])), index


def _max_pool(spatial: int) -> None:
    with_indices = getattr(F, f"max_pool{spatial}d_with_indices")

    @rule_for(with_indices)
    def both(input: Taylor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
             ceil_mode: bool = False, return_indices: bool = False) -> tuple[Tensor, Tensor]:  # fmt: skip
        return pooled(with_indices, spatial, input, kernel_size, stride, padding, dilation, ceil_mode)

    @rule_for(getattr(F, f"max_pool{spatial}d"), getattr(torch, f"max_pool{spatial}d"))
    def values(input: Taylor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
               ceil_mode: bool = False, return_indices: bool = False) -> Any:  # fmt: skip
        y = both(input, kernel_size, stride, padding, dilation, ceil_mode)
        return y if return_indices else y[0]


def _adaptive_max_pool(spatial: int) -> None:
    with_indices = getattr(F, f"adaptive_max_pool{spatial}d_with_indices")

    @rule_for(with_indices)
    def both(input: Taylor, output_size: Any, return_indices: bool = False) -> tuple[Tensor, Tensor]:
        return pooled(with_indices, spatial, input, output_size)

    @rule_for(getattr(F, f"adaptive_max_pool{spatial}d"))
    def values(input: Taylor, output_size: Any, return_indices: bool = False) -> Any:
        y = both(input, output_size)
        return y if return_indices else y[0]


for _spatial in (1, 2, 3):
    _max_pool(_spatial)
    _adaptive_max_pool(_spatial)


def _max_unpool(spatial: int) -> None:
    function = getattr(F, f"max_unpool{spatial}d")

    @rule_for(function)
    def apply(input: Taylor, indices: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return elementary(function, input, indices, *args, **kwargs)


for _spatial in (1, 2, 3):
    _max_unpool(_spatial)
