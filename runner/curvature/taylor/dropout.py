"""Random masks, drawn once and applied to every coefficient: the very draw that torch's own function would make."""

from typing import Any

import torch
from torch import Tensor

from runner.curvature.taylor.arithmetic import multiply
from runner.curvature.taylor.context import ensure_original_layout
from runner.curvature.taylor.registry import rule
from runner.curvature.taylor.tensor import Taylor, tensor, value


def _masked(x: Taylor, mask: Tensor) -> Tensor:
    x0, x1, x2 = x.c
    return tensor(x0 * mask, multiply(x1, mask), multiply(x2, mask))


@rule("dropout")
def dropout(x: Any, p: float, train: bool) -> Any:
    if not train or p == 0 or not isinstance(x, Taylor):
        return x if isinstance(x, Taylor) else torch.dropout(x, p, train)
    ensure_original_layout(x.c[0])
    return _masked(x, torch.dropout(torch.ones_like(x.c[0]), p, True))


@rule("feature_dropout")
def feature_dropout(x: Taylor, p: float, train: bool) -> Any:
    if not train or p == 0:
        return x
    return _masked(x, torch.feature_dropout(torch.ones_like(x.c[0]), p, True))


def _alpha(name: str) -> None:
    function = getattr(torch, name)

    @rule(name)
    def apply(x: Taylor, p: float, train: bool) -> Any:
        """y = slope x + offset with slope 0 where dropped. The offset alone (x = 0) tells which: it is positive where
        kept, with slope a = ((1 - p)(1 + p alpha^2))^(-1/2)."""
        if not train or p == 0:
            return x
        if name == "alpha_dropout":
            ensure_original_layout(x.c[0])
        offset = function(torch.zeros_like(x.c[0]), p, True)
        a = ((1 - p) * (1 + p * 1.7580993408473766**2)) ** -0.5
        slope = (offset > 0).to(offset.dtype) * a
        return tensor(x.c[0] * slope + offset, *(None if c is None else c * slope for c in x.c[1:]))


_alpha("alpha_dropout")
_alpha("feature_alpha_dropout")


@rule("bernoulli", in_place=False)
def bernoulli(x: Taylor, **kwargs: Any) -> Tensor:
    """A draw, not differentiable in its probabilities (autograd's derivative is 0)."""
    ensure_original_layout(x.c[0])
    return torch.bernoulli(value(x), **kwargs)
