"""What passes through a network, layer by layer: activations on the way forward, gradients on the way back."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from runner.curvature.batch_loss import BatchLoss, gradient
from runner.curvature.precision import exact_arithmetic
from runner.curvature.vectors import Vector, flatten


@dataclass
class Layer:
    """One call of a module that holds parameters itself, named by its path in the network.

    `activation`: (N,) root mean square over the units of what sample i brings to it. A unit is one entry of a sample's
    input, of a map one position of one channel. `zero`: the share of zeros in the input, `dead`: the share of units
    that are zero for every sample.
    `signal`: (N,) |d l_i / d z_i| with z_i what it gives for sample i, before any activation function, and l_i the
    sample's loss; under batch norm N dL/dz_i, the sample's share of the batch loss's gradient.
    `gradient`: |dL/dw| over its parameters, 0-d.
    None: there is no such thing, as the activation of an embedding's indices, or the gradient of what is frozen.
    """

    name: str
    activation: Tensor | None = None
    zero: Tensor | None = None
    dead: Tensor | None = None
    signal: Tensor | None = None
    gradient: Tensor | None = None


def layers(loss: BatchLoss) -> list[Layer]:
    """The network's layers in the order of the forward pass: one forward and one backward pass of the batch.

    A module that is called several times is as many layers, each with the gradient of all its calls. The first
    dimension of what goes through a layer is taken for that of samples; of several tensors the first one counts.
    """
    found: list[Layer] = []
    with exact_arithmetic(loss.device), torch.enable_grad():
        leaves = loss.leaves()
        with _watched(loss.model, found, loss.samples):
            outputs = loss.outputs(leaves)
        g = gradient(loss.of_outputs(outputs), leaves)
    for layer in found:
        layer.gradient = _own_gradient(g, layer.name)
        layer.name = layer.name or type(loss.model).__name__
    return found


@contextmanager
def _watched(model: nn.Module, found: list[Layer], samples: int) -> Iterator[None]:
    """Inside, every call of a module with parameters of its own adds to `found`; outside, there are no hooks."""
    with ExitStack() as stack:
        for name, module in model.named_modules():
            if next(module.parameters(recurse=False), None) is not None:
                stack.enter_context(module.register_forward_hook(_hook(name, found, samples), with_kwargs=True))
        yield


def _hook(name: str, found: list[Layer], samples: int) -> Any:
    def seen(module: nn.Module, args: Any, kwargs: Any, outputs: Any) -> None:
        layer = Layer(name)
        found.append(layer)
        if (h := _first((args, kwargs))) is not None:
            h = _rows(h.detach())
            layer.activation = _lengths(h) / h.shape[1] ** 0.5
            layer.zero = (h == 0).to(h).mean()
            layer.dead = (h == 0).all(0).to(h).mean()
        if (z := _first(outputs)) is not None and z.requires_grad:
            z.register_hook(lambda d: setattr(layer, "signal", samples * _lengths(_rows(d.detach()))))

    return seen


def _first(tensors: Any) -> Tensor | None:
    """The first tensor of real numbers."""
    real = (t for t in tree_leaves(tensors) if isinstance(t, Tensor) and t.is_floating_point() and t.dim() > 0)
    return next(real, None)


def _rows(x: Tensor) -> Tensor:
    return x.reshape(len(x), -1)


def _lengths(rows: Tensor) -> Tensor:
    """Squares of small numbers underflow in fp32, so they are added up in fp64."""
    return torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64).to(rows)


def _own_gradient(g: Vector, layer: str) -> Tensor | None:
    own = {name: entry for name, entry in g.items() if name.rpartition(".")[0] == layer}
    return _lengths(flatten(own)[None])[0] if own else None


def layer_of(parameter: str) -> str:
    """The module that a parameter belongs to: `stages.0.conv1.weight` -> `stages.0.conv1`."""
    return parameter.rpartition(".")[0] or parameter
