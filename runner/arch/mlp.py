"""Fully connected networks of any depth and width."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from runner.arch.activation import Activation, activation_layer
from runner.arch.norm import Norm, norm_layers
from runner.arch.scaled import scaled
from runner.errors import BadInput


class MLP(nn.Module):
    """A fully connected network: inputs of any shape, flattened, to `outputs` numbers.

    `depth` counts weight layers: `depth - 1` hidden layers of `scaled(base_width, width)` units and a linear
    head. A hidden layer is linear, then the normalisation if any, then the activation. `bias` is that of
    every linear layer.

    With `residual` the first weight layer is a hidden layer to the width, the last one the head, and those
    between go in pairs into blocks h + W2 phi(W1 h) / sqrt(blocks) (Orvieto et al., "Vanishing Curvature and
    the Power of Adaptive Methods in Randomly Initialized Deep Networks"; a normalisation follows both W1 and
    W2): `depth` = 2 + 2 blocks.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        outputs: int,
        *,
        width: float = 1.0,
        base_width: int = 50,
        depth: int = 8,
        activation: Activation = "relu",
        bias: bool = False,
        norm: Norm = "none",
        residual: bool = False,
    ) -> None:
        super().__init__()
        _check(depth, outputs, residual)
        units = scaled(base_width, width)

        def linear(inputs: int) -> list[nn.Module]:
            return [nn.Linear(inputs, units, bias=bias), *norm_layers(norm, units, dims=1)]

        layers: list[nn.Module] = []
        features = math.prod(input_shape)
        for _ in range(1 if residual else depth - 1):
            layers.append(_hidden(linear(features), activation))
            features = units
        if residual:
            blocks = (depth - 2) // 2
            layers += [Block(linear(units), linear(units), activation, blocks) for _ in range(blocks)]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(features, outputs, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, *input_shape) to (N, outputs)."""
        return self.head(self.body(x.flatten(1)))


class Block(nn.Module):
    """h + W2 phi(W1 h) / sqrt(blocks), (N, units) to (N, units)."""

    def __init__(self, first: list[nn.Module], second: list[nn.Module], activation: Activation, blocks: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(_hidden(first, activation), *second)
        self.scale = 1 / math.sqrt(blocks)

    def forward(self, h: Tensor) -> Tensor:
        return h + self.scale * self.branch(h)


def _hidden(linear: list[nn.Module], name: Activation) -> nn.Sequential:
    return nn.Sequential(*linear, activation_layer(name))


def _check(depth: int, outputs: int, residual: bool) -> None:
    if outputs < 1:
        raise BadInput(f"arch.outputs should be at least 1, found {outputs}.")
    if residual and (depth < 4 or depth % 2):
        raise BadInput(
            f"arch.depth should be even and at least 4 with arch.residual=true (a first layer, blocks of two"
            f" weight layers, a head), found {depth}."
        )
    if depth < 1:
        raise BadInput(f"arch.depth, the number of weight layers, should be at least 1, found {depth}.")
