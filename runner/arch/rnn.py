"""Elman's recurrent network, unrolled in time."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from runner.arch.activation import Activation, activation_layer
from runner.arch.scaled import scaled
from runner.errors import BadInput


class RNN(nn.Module):
    """A simple recurrent network (Elman 1990, "Finding structure in time"): h_t = phi(U x_t + W h_t-1 + b) from
    h_0 = 0, and at the end a linear head on h_T, to `outputs` numbers.

    Images are read row by row: an input (C, H, W) is a sequence of H vectors of C W numbers. A vector is a sequence of
    its numbers. There are `scaled(base_width, width)` hidden units; `bias` is that of both layers.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        outputs: int,
        *,
        width: float = 1.0,
        base_width: int = 50,
        activation: Activation = "tanh",
        bias: bool = True,
    ) -> None:
        super().__init__()
        if outputs < 1:
            raise BadInput(f"arch.outputs should be at least 1, found {outputs}.")
        units = scaled(base_width, width)
        self.steps = input_shape[-2] if len(input_shape) > 1 else input_shape[0]
        features = math.prod(input_shape) // self.steps
        self.input = nn.Linear(features, units, bias=bias)
        self.recurrent = nn.Linear(units, units, bias=False)
        self.activation = activation_layer(activation)
        self.head = nn.Linear(units, outputs, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, *input_shape) to (N, outputs)."""
        rows = x.movedim(-2, 1) if x.ndim > 2 else x  # (N, H, C, W)
        first, *rest = self.input(rows.reshape(len(x), self.steps, -1)).unbind(1)
        h = self.activation(first)
        for driven in rest:
            h = self.activation(driven + self.recurrent(h))
        out: Tensor = self.head(h)
        return out
