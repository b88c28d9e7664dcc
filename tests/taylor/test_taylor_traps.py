"""Where the value of a curve and what is carried with it could part without a word."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from taylor_oracle import KINDS, Op, assert_expansion, assert_split
from torch import Tensor, nn

from runner import curvature

NORMS: dict[str, Callable[[], nn.Module]] = {
    "batch": lambda: nn.BatchNorm1d(6),
    "cumulative": lambda: nn.BatchNorm1d(6, momentum=None),
    "without affine": lambda: nn.BatchNorm1d(6, affine=False),
    "instance": lambda: nn.InstanceNorm1d(6, affine=True, track_running_stats=True),
}


def _read(norm: nn.Module, h: Tensor) -> Tensor:
    """Twice through the norm, then its statistics."""
    y = norm(2 * norm(h))
    return torch.tanh(y * norm.running_var.sqrt()[:, None] + norm.running_mean[:, None])  # type: ignore


def _thrown_away(norm: nn.Module, h: Tensor) -> Tensor:
    mean, var = torch.zeros(6).double(), torch.ones(6).double()
    return F.batch_norm(h, mean, var, training=True).tanh() * var.sqrt()[:, None] + norm(h)


def _again(norm: nn.Module, h: Tensor) -> Tensor:
    """In training, then with the running statistics, which that has changed."""
    return F.batch_norm(norm(h), norm.running_mean, norm.running_var).tanh()  # type: ignore


class Normed(nn.Module):
    def __init__(self, norm: nn.Module, use: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.norm, self.b, self.use = nn.Conv1d(2, 6, 1), norm, nn.Linear(6, 3), use

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.b(self.use(self.norm, self.a(x)).mean(-1))
        return found


@pytest.mark.parametrize("use", [_read, _again, _thrown_away])
@pytest.mark.parametrize("norm", NORMS)
def test_running_statistics_that_are_read_after_they_changed(norm: str, use: Callable[..., Tensor]) -> None:
    torch.manual_seed(0)
    model = Normed(NORMS[norm](), use).double()
    x, y = torch.randn(4, 2, 5).double(), torch.randint(0, 3, (4,))
    before = copy.deepcopy(model.state_dict())
    assert_split(model, F.cross_entropy, x, y)
    assert all(torch.equal(entry, before[name]) for name, entry in model.state_dict().items())


KINKS: dict[str, Callable[[Tensor], Tensor]] = {
    "clamp min": lambda z: z.clamp(min=0),
    "clamp max": lambda z: z.clamp(max=0),
    "clamp both": lambda z: z.clamp(-1, 0),
    "clamp tensor": lambda z: z.clamp(min=torch.zeros(()).double()),
    "clamp tensors": lambda z: z.clamp(-torch.ones(4).double(), torch.zeros(4).double()),
    "clamp_min": lambda z: z.clamp_min(0),
    "clamp_max": lambda z: z.clamp_max(0),
    "maximum": lambda z: torch.maximum(z, torch.zeros_like(z)),
    "minimum": lambda z: torch.minimum(z, torch.zeros_like(z)),
    "elu": lambda z: F.elu(z, 0.7),
    "selu": F.selu,
    "celu": lambda z: F.celu(z, 0.5),
    "relu": F.relu,
    "relu6": F.relu6,
    "leaky_relu": F.leaky_relu,
    "hardtanh": lambda z: F.hardtanh(z, 0, 1),
    "hardswish": lambda z: F.hardswish(z - 3),
    "softshrink": lambda z: F.softshrink(z + 0.5),
    "threshold": lambda z: F.threshold(z, 0, 0),
    "abs": torch.abs,
    "silu": F.silu,
    "mish": F.mish,
    "logsigmoid": F.logsigmoid,
    "softsign": F.softsign,
}


@KINDS
@pytest.mark.parametrize("name", KINKS)
def test_at_a_kink_both_derivatives_are_autograds(name: str, kind: type[Op]) -> None:
    at_zero = torch.tensor([0.0, 1.0, 0.0, 1.0]).double()
    assert_expansion(kind(lambda z: KINKS[name](z * at_zero) + z * z.exp(), [(3, 4)]))
    assert_expansion(kind(lambda z: KINKS[name](z - z.detach()) * z, [(3, 4)]))  # zero, and moves


@KINDS
@pytest.mark.parametrize("function", [torch.maximum, torch.minimum, torch.max])
def test_a_bound_that_is_infinite(function: Callable[..., Tensor], kind: type[Op]) -> None:
    bound = torch.full((4,), math.inf if function is torch.minimum else -math.inf).double()
    assert_expansion(kind(lambda z: function(z, bound).tanh(), [(3, 4)]))


LAID: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "contiguous": lambda d, y: _written(y, y.contiguous()),
    "to": lambda d, y: _written(y, y.to(memory_format=torch.contiguous_format)),
    "contiguous as channels last": lambda d, y: _doubled(y.contiguous(memory_format=torch.channels_last)) + y.sin(),
    "to channels last": lambda d, y: _doubled(y.to(memory_format=torch.channels_last)) + y.sin(),
    "is_contiguous": lambda d, y: y if y.is_contiguous() else 3 * y,
    "stride": lambda d, y: y * y.stride(1) / 36,
}


def _doubled(y: Tensor) -> Tensor:
    return y.mul_(2)


def _written(y: Tensor, same: Tensor) -> Tensor:
    same.mul_(2)
    return y


class Laid(nn.Module):
    def __init__(self, use: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.c, self.d, self.use = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 3, 3, padding=1), use

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.d(self.use(self.d, 1.5 * self.c(x))).sin().mean((2, 3))
        return found


@pytest.mark.parametrize("name", LAID)
def test_maps_that_are_turned_to_channels_last_count_as_they_lie_in_the_network(name: str) -> None:
    """In fp32 on the CPU a sweep turns them."""
    torch.manual_seed(0)
    model, x, y = Laid(LAID[name]), torch.randn(3, 2, 6, 6), torch.randn(3, 3)
    found = curvature.split(model, F.mse_loss, x, y)
    expected = curvature.split(model, F.mse_loss, x, y, method="double_backward", dtype=torch.float64)
    scale = float(expected.gGg + expected.gHrg.abs())
    assert abs(float(found.gGg) - float(expected.gGg)) < 1e-4 * scale
    assert abs(float(found.gHrg) - float(expected.gHrg)) < 1e-4 * scale


@pytest.mark.parametrize("reshaped", [lambda h: h.view(len(h), -1), lambda h: h.view_as(h.reshape(len(h), -1))])
def test_a_view_of_what_moves_by_its_bias_alone(reshaped: Callable[[Tensor], Tensor]) -> None:
    """What is carried was expanded, where the value was not."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c, self.o = nn.Linear(4, 4), nn.Linear(12, 3)
            self.c.weight.requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.o(reshaped(self.c(x)).tanh())
            return found

    torch.manual_seed(0)
    assert_split(Model().double(), F.cross_entropy, torch.randn(5, 3, 4).double(), torch.randint(0, 3, (5,)))


def test_numpys_name_of_a_dimension() -> None:
    assert_expansion(Op(lambda z: z.max(axis=-1).values * z.std(axis=0).sum(), [(3, 4)]))
