"""Functions whose second derivative torch gets wrong, computed by others that it differentiates rightly.

The first derivatives of these are right, so training is not touched.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class TwiceDifferentiable(TorchFunctionMode):
    """Inside, second derivatives are right for: weight norm, whose fused kernel (torch 2.10 to 2.15) takes the norms it
    has saved for constants; layer, batch and instance norm with a bias and no weight, whose double backward leaves out
    terms."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch._weight_norm:
            return _weight_norm(*args, **kwargs)
        if func in BIAS_AFTER_WEIGHT:
            return _with_a_weight(func, BIAS_AFTER_WEIGHT[func], list(args), kwargs)
        return func(*args, **kwargs)


# The position of `weight`, which `bias` follows.
BIAS_AFTER_WEIGHT: dict[Any, int] = {
    F.layer_norm: 2,
    torch.layer_norm: 2,
    F.batch_norm: 3,
    torch.batch_norm: 1,
    F.instance_norm: 3,
    torch.instance_norm: 1,
}


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """g v / |v|, norms over all dimensions but `dim`."""
    return v * (g / torch.norm_except_dim(v, 2, dim))


def _with_a_weight(func: Any, place: int, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """`func` with a weight of ones where it has a bias alone."""
    given = dict(zip(("weight", "bias"), args[place : place + 2], strict=False)) | kwargs
    bias = given.get("bias")
    if given.get("weight") is None and bias is not None:
        if len(args) > place:
            args[place] = torch.ones_like(bias)
        else:
            kwargs = {**kwargs, "weight": torch.ones_like(bias)}
    return func(*args, **kwargs)
