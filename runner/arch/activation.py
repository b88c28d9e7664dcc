"""Elementwise activations by name."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from runner.errors import BadInput

Activation = Literal["relu", "identity", "tanh", "softplus", "gelu", "smoolu"]


class SmooLU(nn.Module):
    """x e^(-1/x) for x > 0, else exactly 0: a smooth rectifier (Cooper, "The loss landscape of
    overparameterized neural networks"), with all derivatives 0 at 0.

    The argument is replaced where e^(-1/x) is not needed: `where` alone would still differentiate -1/x at 0
    and give 0 * inf = NaN. For x <= 1e-3, e^(-1/x) <= e^(-1000), so the value and each derivative that can be
    asked for in practice underflow to 0 in every dtype up to float64: the guard changes no bit of the result.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same shape."""
        positive = x > 1e-3
        safe = torch.where(positive, x, 1.0)
        return torch.where(positive, safe * torch.exp(-torch.reciprocal(safe)), 0.0)


# Softplus turns into the identity above its threshold; e^-40 is below the resolution of float64 there, while
# the usual threshold of 20 would cut off the second derivative at 2e-9.
_MAKERS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "identity": nn.Identity,
    "tanh": nn.Tanh,
    "softplus": partial(nn.Softplus, threshold=40.0),
    "gelu": nn.GELU,
    "smoolu": SmooLU,
}


def activation_layer(name: Activation) -> nn.Module:
    """A new module for the activation `name`."""
    if name not in _MAKERS:
        raise BadInput(f"arch.activation should be one of {', '.join(_MAKERS)}, found {name}.")
    return _MAKERS[name]()
