"""A network built to fit its training data exactly, to start from."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from runner.errors import BadInput
from runner.init import Data

GAP = 8.0  # between neighbours, at least: beside it, smoolu(x) is near enough to x - 1 for a well-conditioned matrix
FITTED = 1e-6  # of the largest target; rounding leaves far less


@dataclass(frozen=True)
class Interpolating:
    """A fully connected network with loss 0, up to rounding: the construction of Lemma 3.3 of Cooper, "The loss
    landscape of overparameterized neural networks", for any number of outputs.

    The N inputs are projected onto one random vector, scaled so that neighbours z_1 < z_2 < … lie well apart. Unit j of
    the last hidden layer is phi(z - z_{j-1} - 1), which is 0 at the points before j if phi(x) = 0 for x <= 0 (relu,
    smoolu): the units' values at the points are a triangular matrix, solved for the weights of the head. (The 1 keeps
    the points clear of a ReLU's kinks.) Units that are left over are off, with weights 0.

    In a deeper network (Corollary 3.4) the first unit of each earlier layer carries an increasing function of the
    projection, and the others are off.

    Leaves the model in float64. Raises BadInput unless it is a chain of linear layers with biases and such a phi, with
    at least N units in the last hidden layer, the targets are real, and the inputs all differ.
    """

    @torch.no_grad()
    def __call__(self, model: nn.Module, *, generator: torch.Generator, width: int, data: Data) -> None:
        layers = _linear_layers(model)
        x, y = (part.to(layers[0].weight.device, torch.float64) for part in data())
        _check_targets(y, layers[-2])
        model.double()  # single precision would be seen in the loss
        for p in model.parameters():
            p.zero_()
        direction = torch.randn(layers[0].in_features, generator=generator, dtype=torch.float64).to(x)
        for layer in layers[:-2]:
            h = _input_of(layer, model, x)
            layer.weight[0] = _spread(direction, h)
            layer.bias[0] = 1 - (h @ layer.weight[0]).min()
            direction = torch.eye(1, layer.out_features).to(x)[0]
        _interpolate(model, layers[-2], layers[-1], direction, x, y)
        if not (model(x) - y).abs().max() <= FITTED * y.abs().max():
            raise BadInput("arch should be a plain chain of linear layers and activations with init=interpolating")


def _interpolate(model: nn.Module, last: nn.Linear, head: nn.Linear, direction: Tensor, x: Tensor, y: Tensor) -> None:
    """Set the last hidden layer and the head so that model(x) = y (N, outputs)."""
    h = _input_of(last, model, x)
    last.weight[: len(x)] = _spread(direction, h)
    z, order = (h @ last.weight[0]).sort()
    last.bias[: len(x)] = -1 - torch.cat([z[:1] - GAP, z[:-1]])
    units = _input_of(head, model, x)[order, : len(x)]
    if units.triu(1).any() or not (units.diagonal() > 0).all():
        raise BadInput(
            "arch.activation should be relu or smoolu, which are 0 for x <= 0 and positive above, without blocks"
            " (arch.residual=false), with init=interpolating"
        )
    head.weight[:, : len(x)] = torch.linalg.solve_triangular(units, y[order], upper=False).T


def _spread(direction: Tensor, h: Tensor) -> Tensor:
    """The multiple of `direction` (d,) on which the points h (N, d) have projections at least GAP apart."""
    gaps = (h @ direction).sort().values.diff()
    if not (gaps > 0).all():
        raise BadInput("dataset: the training inputs should all differ with init=interpolating, found two alike")
    return direction * (GAP / gaps.min() if len(gaps) else 1)


def _input_of(layer: nn.Module, model: nn.Module, x: Tensor) -> Tensor:
    """What `layer` is given in model(x)."""
    seen: list[Tensor] = []
    with layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])):
        model(x)
    return seen[0]


def _linear_layers(model: nn.Module) -> list[nn.Linear]:
    """The layers, which hold all the parameters there are."""
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    own = {p for layer in layers for p in layer.parameters()}
    if len(layers) < 2 or any(p not in own for p in model.parameters()):
        raise BadInput(
            "arch should be an mlp of at least two weight layers without normalisation (arch.depth >= 2,"
            f" arch.norm=none) with init=interpolating, found {type(model).__name__} with {len(layers)} linear layers"
        )
    if all(layer.bias is None for layer in layers):
        raise BadInput("arch.bias should be true with init=interpolating, found false")
    if any(layer.bias is None for layer in layers):
        raise BadInput(
            "arch should be an mlp, a chain of linear layers with biases, with init=interpolating, found "
            f"{type(model).__name__}"
        )
    return layers


def _check_targets(y: Tensor, last: nn.Linear) -> None:
    if y.ndim != 2:
        raise BadInput(
            "loss should be mse, or another with real targets, with init=interpolating, found one of classes"
        )
    if last.out_features < len(y):
        raise BadInput(
            f"arch.base_width times width should be at least {len(y)}, the number of training samples, with"
            f" init=interpolating, found {last.out_features}"
        )
