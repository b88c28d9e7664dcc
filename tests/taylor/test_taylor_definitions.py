"""Rules that double backward cannot judge, against the definitions; and operations in place."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from taylor_oracle import Op, assert_expansion
from torch import nn

_INDEX = torch.tensor([2, 0, 2, 1])
_MASK = torch.arange(24).view(2, 3, 4) % 3 == 0
_GRID = torch.linspace(-1, 1, 16, dtype=torch.float64).view(1, 2, 4, 2)
_UNITS = torch.eye(12, dtype=torch.float64).view(1, 12, 3, 4)  # what grid_sample, which is linear, does to each pixel

# torch has no double backward of hardsigmoid, of weighted bags and (2.11) of grid_sample, a wrong one of its weight
# norm, and one of celu that is right to single precision only; each against what its documentation says
DEFINED: dict[str, tuple[Any, Any, list[tuple[int, ...]]]] = {
    "hardsigmoid": (F.hardsigmoid, lambda x: F.relu6(x + 3) / 6, [(5, 4)]),
    "celu": (
        lambda x: F.celu(x, 0.7),
        lambda x: torch.where(x > 0, x, 0.7 * torch.expm1(x.clamp(max=0) / 0.7)),
        [(5, 4)],
    ),
    "weight_norm": (
        lambda v, g: torch._weight_norm(v, g, 0),
        lambda v, g: v * g / v.square().sum(1, True).sqrt(),
        [(4, 3), (4, 1)],
    ),
    "grid_sample": (
        lambda x: F.grid_sample(x, _GRID, align_corners=False),
        lambda x: torch.einsum("ncp,pij->ncij", x.flatten(2), F.grid_sample(_UNITS, _GRID, align_corners=False)[0]),
        [(1, 2, 3, 4)],
    ),
    "embedding_bag_weighted": (
        lambda w, p: F.embedding_bag(_INDEX.view(2, 2), w, per_sample_weights=p, mode="sum"),
        lambda w, p: (w[_INDEX.view(2, 2)] * p[..., None]).sum(1),
        [(4, 3), (2, 2)],
    ),
}


@pytest.mark.parametrize("name", DEFINED)
def test_against_the_definition(name: str) -> None:
    function, definition, shapes = DEFINED[name]
    assert_expansion(Op(function, shapes), reference=Op(definition, shapes))


IN_PLACE: dict[str, Any] = {
    "relu_": lambda x: (x * 2).relu_(),
    "relu_module": lambda x: nn.ReLU(inplace=True)(x * 2),
    "hardswish": lambda x: nn.Hardswish(inplace=True)(x * 2),
    "silu": lambda x: F.silu(x * 2, inplace=True),
    "leaky": lambda x: F.leaky_relu(x * 2, 0.1, True),
    "hardtanh": lambda x: F.relu6(x * 2, inplace=True),
    "elu": lambda x: F.elu(x * 2, 1.0, True),
    "threshold": lambda x: F.threshold(x * 2, 0.1, 0.2, True),
    "selu": lambda x: F.selu(x * 2, inplace=True),
    "mish": lambda x: F.mish(x * 2, inplace=True),
    "exp_": lambda x: (x * 2).exp_(),
    "clamp_": lambda x: (x * 2).clamp_(min=0.1),
    "zero_": lambda x: (x * 2).zero_() + x,
    "masked_fill_": lambda x: (x * 2).masked_fill_(_MASK, 0.0),
    "div_": lambda x: (x * 2).div_(3).mul_(x),
    "copy_": lambda x: torch.zeros_like(x * x).add(x).copy_(x * x),
    "fill_": lambda x: (x * 2).fill_(2.0) + x,
    "index_add_": lambda x: (x * 2).index_add_(2, _INDEX, x),
    "addcmul_": lambda x: (x * 2).addcmul_(x, x),
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place(name: str) -> None:
    assert_expansion(Op(IN_PLACE[name], [(2, 3, 4)]))


def test_in_place_operators_keep_what_others_hold() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        y = x + 1  # shares x's higher coefficients
        y += x * x
        y -= 0.5
        y *= x
        y /= x.exp()
        z = y.sigmoid() * 2
        z **= 2
        return z + x + y

    assert_expansion(Op(function, [(3, 4)]))
