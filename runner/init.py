"""Laws that a network's parameters are drawn from.

An initialisation is called as `init(model, generator=..., width=..., data=...)` and overwrites the model's parameters
in place, in the order of its modules. Every draw comes from the (CPU) generator in float64 and is then cast
and moved, so that a seed means the same point on every device and, up to rounding, in every precision; no
global random state is touched.

Drawn are the weights (parameters of at least two dimensions) and biases of all layers but the normalisations,
which keep the weight 1 and bias 0 that they are made with, as do one-dimensional parameters that are no
biases.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from runner.errors import BadInput

Law = Literal["normal", "uniform", "rademacher"]
Fan = Literal["in", "out", "average", "width"]
Data = Callable[[], tuple[Tensor, Tensor]]  # the training inputs as the network sees them, and the loss's targets

_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


class Init(Protocol):
    """Overwrites the parameters of `model`; `width` is the number of hidden units that `fan=width` means, and `data`
    gives the training set to whom it concerns."""

    def __call__(self, model: nn.Module, *, generator: torch.Generator, width: int, data: Data) -> None: ...


@dataclass(frozen=True)
class Independent:
    """Independent entries from one symmetric law, with mean 0.

    The variance of a weight's entries is gain^2 / fan, and biases are 0. `fan` is the number of inputs that
    an output sums over, or of outputs that an input goes to (both counting a convolution's kernel positions),
    the average of the two (Glorot and Bengio 2010), or the network's `width` times the kernel positions: one
    variance for all layers, as in Theorem 1 of "Convex Behavior of Deep Neural Networks in Relation to the
    Layers' Width".

    With `std`, weights and biases alike have that standard deviation, and gain and fan say nothing.
    """

    law: Law
    gain: float = 1.0
    fan: Fan = "in"
    std: float | None = None

    def __post_init__(self) -> None:
        _one_of("init.law", self.law, ("normal", "uniform", "rademacher"))
        _one_of("init.fan", self.fan, ("in", "out", "average", "width"))
        _positive("init.gain", self.gain)
        if self.std is not None and not 0 <= self.std < math.inf:
            raise BadInput(f"init.std should be null or a number >= 0, found {self.std}.")

    @torch.no_grad()
    def __call__(self, model: nn.Module, *, generator: torch.Generator, width: int, data: Data | None = None) -> None:
        for drawn in _drawn(model):
            if drawn.is_bias and self.std is None:
                drawn.parameter.zero_()
                continue
            std = self.gain / math.sqrt(_fan(self.fan, drawn, width)) if self.std is None else self.std
            drawn.parameter.copy_(std * _standard(self.law, drawn.parameter.shape, generator))


@dataclass(frozen=True)
class Sphere:
    """The vector of all drawn parameters, uniform on the sphere of `radius` around 0 (Sagun et al.,
    "Singularity of the Hessian in Deep Learning": "on the surface of a sphere with a fixed radius given the
    number of parameters").

    The paper does not give the radius; null takes 0.1 sqrt(n) for n parameters, the length of n draws from
    N(0, 0.1^2).
    """

    radius: float | None = None

    def __post_init__(self) -> None:
        if self.radius is not None:
            _positive("init.radius", self.radius)

    @torch.no_grad()
    def __call__(self, model: nn.Module, *, generator: torch.Generator, width: int, data: Data | None = None) -> None:
        parameters = [drawn.parameter for drawn in _drawn(model)]
        draws = [_standard("normal", parameter.shape, generator) for parameter in parameters]
        length = math.sqrt(sum(draw.square().sum().item() for draw in draws))
        radius = 0.1 * math.sqrt(sum(draw.numel() for draw in draws)) if self.radius is None else self.radius
        for parameter, draw in zip(parameters, draws, strict=True):
            parameter.copy_(draw * (radius / length))


@dataclass(frozen=True)
class Default:
    """What the network's constructor drew (from the global random state) is kept."""

    def __call__(self, model: nn.Module, *, generator: torch.Generator, width: int, data: Data | None = None) -> None:
        pass


class _Drawn(NamedTuple):
    module: nn.Module
    parameter: nn.Parameter
    is_bias: bool


def _drawn(model: nn.Module) -> Iterator[_Drawn]:
    """Every weight and bias outside of normalisation layers, once, also where modules share it."""
    seen = set()
    for module in model.modules():
        if isinstance(module, _NORMS):
            continue
        for name, parameter in module.named_parameters(recurse=False):
            is_bias = parameter.ndim < 2
            if parameter in seen or (is_bias and "bias" not in name):
                continue
            seen.add(parameter)
            yield _Drawn(module, parameter, is_bias)


def _fan(fan: Fan, drawn: _Drawn, width: int) -> float:
    """The number that divides the variance: positions of the kernel times inputs, outputs, their mean, or the
    width."""
    weight, module = drawn.parameter, drawn.module
    outputs, inputs = weight.shape[:2]
    if isinstance(module, _ConvNd):  # the shape of grouped and transposed ones does not show both numbers
        outputs, inputs = module.out_channels // module.groups, module.in_channels // module.groups
    each = {"in": inputs, "out": outputs, "average": (inputs + outputs) / 2, "width": width}[fan]
    return each * math.prod(weight.shape[2:])


def _standard(law: Law, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Independent draws with mean 0 and variance 1, float64 on the CPU."""
    if law == "normal":
        return torch.randn(shape, generator=generator, dtype=torch.float64)
    if law == "uniform":
        return math.sqrt(3) * (2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1)
    return 2 * torch.randint(2, shape, generator=generator, dtype=torch.float64) - 1


def _one_of(key: str, found: str, choices: tuple[str, ...]) -> None:
    if found not in choices:
        raise BadInput(f"{key} should be one of {', '.join(choices)}, found {found}.")


def _positive(key: str, found: float) -> None:
    if not 0 < found < math.inf:
        raise BadInput(f"{key} should be a number > 0, found {found}.")
