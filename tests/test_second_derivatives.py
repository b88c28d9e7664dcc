"""Before a run, second derivatives that autograd gets wrong are refused, and right ones are not."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import runner
from runner.errors import BadInput

SMALL = ["dataset.size=20", "dataset.dim=5", "steps=4", "precision=fp64", "device=cpu", "init=default", "arch=custom"]


class Product(torch.autograd.Function):
    """a b, whose backward pass takes b for a constant in the second derivative."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return a * b

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        a, b = ctx.saved_tensors
        return grads[0] * b.detach(), grads[0] * a


class Gated(nn.Module):
    def __init__(self, input_shape: list[int], outputs: int, right: bool = False) -> None:
        super().__init__()
        self.a, self.b, self.right = nn.Linear(input_shape[0], outputs), nn.Linear(input_shape[0], outputs), right

    def forward(self, x: Tensor) -> Tensor:
        product: Tensor = self.a(x) * self.b(x) if self.right else Product.apply(self.a(x), self.b(x))
        return product


@pytest.mark.parametrize("probe", ["hvp", "hessian", "spectrum", "trace"])
def test_second_derivatives_that_autograd_gets_wrong_are_refused(tmp_path: Path, probe: str) -> None:
    own = [*SMALL, f"arch._target_={__name__}.Gated", f"probe={probe}", f"hydra.run.dir={tmp_path / 'run'}"]
    with pytest.raises(
        BadInput, match=f"^probe.{probe}: the network's Hessian should be symmetric, found u'Hv and v'Hu"
    ):
        runner.run(own)
    assert not (tmp_path / "run").exists()
    runner.run([*own, "+arch.right=true"])
    runner.run([*own, "probe=fd", f"hydra.run.dir={tmp_path / 'first'}"])  # first derivatives are right


class Tanh(torch.autograd.Function):
    """If not right, its backward pass takes its input for a constant: a Hessian that is symmetric, and wrong."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, right: bool) -> Tensor:
        ctx.save_for_backward(x)
        ctx.right = right
        return torch.tanh(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return grads[0] * (1 - torch.tanh(x if ctx.right else x.detach()) ** 2), None


tanh = Tanh.apply  # as many modules hold it


class Relu(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.clamp(min=0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0] * (ctx.saved_tensors[0] > 0)


class Rounded(torch.autograd.Function):
    """Straight through, as quantised networks have it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.round(8 * x) / 8

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


class OwnDropout(torch.autograd.Function):
    """Drops out half of the units, and writes to what it is given."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.kept = torch.rand_like(x) > 0.5
        ctx.mark_dirty(x)
        return x.mul_(ctx.kept)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0] * ctx.kept


class Between(nn.Module):
    """Two layers, zero biases in the first, and between them what `kind` says."""

    def __init__(self, input_shape: list[int], outputs: int, kind: str) -> None:
        super().__init__()
        self.a, self.b, self.kind = nn.Linear(input_shape[0], 6), nn.Linear(6, outputs), kind
        nn.init.zeros_(self.a.bias)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        inner: Tensor = {
            "constant": lambda: tanh(y, False),
            "own": lambda: tanh(y, True),
            "own, fp32": lambda: tanh(y.float(), True).to(y.dtype),
            "own beside what is detached": lambda: tanh(y, True) * torch.tanh(y.detach()),
            "noise": lambda: OwnDropout.apply(y + 0),
            "straight through": lambda: Rounded.apply(y),
            "kinks": lambda: Relu.apply(self.a(x * (x > 3))),  # most at 0 exactly
            "detached": lambda: y * torch.tanh(y.detach()),
            "fp32": lambda: F.rms_norm(y.float(), (6,)).to(y.dtype),
        }[self.kind]()
        return self.b(inner)


def test_an_own_function_with_a_wrong_second_derivative_is_refused(tmp_path: Path) -> None:
    own = [*SMALL, f"arch._target_={__name__}.Between", "+arch.kind=constant", f"hydra.run.dir={tmp_path / 'run'}"]
    forward = vars(Tanh)["forward"]
    with pytest.raises(
        BadInput, match=r"^probe.hvp: the second derivative of the autograd function Tanh should be that"
    ):
        runner.run([*own, "probe=hvp"])
    assert vars(Tanh)["forward"] is forward
    assert not (tmp_path / "run").exists()
    runner.run([*own, "probe=fd"])


RIGHT = ["own", "own, fp32", "own beside what is detached", "straight through", "noise", "kinks", "detached", "fp32"]


@pytest.mark.parametrize("kind", RIGHT)
def test_right_second_derivatives_are_not_refused(tmp_path: Path, kind: str) -> None:
    """Neither rounding on the way, nor weights at which units stand on their kinks, nor what is constant on purpose."""
    own = [*SMALL, f"arch._target_={__name__}.Between", f"+arch.kind='{kind}'", f"hydra.run.dir={tmp_path / 'run'}"]
    runner.run([*own, "probe=hvp", "loss=mse"])
