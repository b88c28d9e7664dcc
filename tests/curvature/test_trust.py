"""Whether a Hessian by double backward can be trusted: of networks that are right, and of one that is not."""

import pytest
import torch
from torch import Tensor, nn

from runner.curvature.batch_loss import BatchLoss
from runner.curvature.trust import asymmetry, imbalance, misfit, misfits


def loss_of(model: nn.Module, size: tuple[int, ...], classes: int = 3) -> BatchLoss:
    torch.manual_seed(1)
    inputs = torch.randn(4, *size, dtype=torch.float64).clamp(min=0)
    return BatchLoss(model.double(), nn.CrossEntropyLoss(), inputs, torch.arange(4) % classes)


@pytest.fixture(params=["tanh", "relu", "pooled", "normalised", "zero_branch"])
def right(request: pytest.FixtureRequest) -> BatchLoss:
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 4, 3)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    match request.param:
        case "tanh":
            return loss_of(nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)), (5,))
        case "relu":
            return loss_of(nn.Sequential(nn.Linear(5, 80), nn.ReLU(), nn.Linear(80, 3)), (5,))
        case "pooled":
            return loss_of(nn.Sequential(conv, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3)), (2, 8, 8))
        case "normalised":
            return loss_of(
                nn.Sequential(conv, nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)), (2, 8, 8)
            )
        case _:
            return loss_of(ZeroBranch(), (5,))


class ZeroBranch(nn.Module):
    """A residual branch that starts as zero, before a ReLU: units stand on their kinks."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 5), nn.Linear(5, 3)
        nn.init.zeros_(self.a.weight)
        nn.init.zeros_(self.a.bias)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.b(torch.relu(x + self.a(x)))
        return found


def test_of_right_networks_nothing_is_off(right: BatchLoss) -> None:
    assert asymmetry(right) < 1e-15
    assert imbalance(right) < 1e-13
    assert misfits(right) == {}


def test_nothing_is_off_where_h_is_zero() -> None:
    dead = nn.Linear(5, 1).double()
    assert asymmetry(BatchLoss(dead, lambda f, t: 0 * f.mean(), torch.ones(4, 5).double(), None)) == 0
    assert imbalance(BatchLoss(dead, lambda f, t: 0 * f.mean(), torch.ones(4, 5).double(), None)) == 0


class Squared(torch.autograd.Function):
    """x^2 with the backward pass of a function of another slope's slope: f' = 2x, f'' = 2 (1 + `error`)."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, error: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.error = error  # type: ignore[attr-defined]
        return x * x

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *grads: Tensor) -> tuple[Tensor, None]:
        (x,), error = ctx.saved_tensors, ctx.error  # type: ignore[attr-defined]
        return grads[0] * 2 * ((1 + error) * x - error * x.detach()), None


@pytest.mark.parametrize("error", [0.0, 0.1, -1.0])
def test_a_wrong_second_derivative_is_off_by_as_much_as_it_is_wrong(error: float) -> None:
    """c'x^2 has the slope 2 c x and the second derivative 2 c: what autograd finds instead is (1 + error) 2 c."""

    class Model(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = Squared.apply(super().forward(x), error)
            return found

    torch.manual_seed(0)
    loss = loss_of(Model(5, 3), (5,))
    assert asymmetry(loss) < 1e-15
    found = misfits(loss)
    assert found.keys() == {"Squared"}
    if not error:
        assert found["Squared"] < 1e-5
    elif error == -1:  # what autograd finds is zero: a share of the slope / 1000 alone
        assert found["Squared"] > 100
    else:
        assert found["Squared"] == pytest.approx(abs(error) / (1 + error), rel=2e-2)


class OfComplex(torch.autograd.Function):
    """|z|^2, which has no floating-point argument to try it at."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, z: Tensor) -> Tensor:
        ctx.save_for_backward(z)
        return z.abs() ** 2

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *grads: Tensor) -> Tensor:
        (z,) = ctx.saved_tensors  # type: ignore[attr-defined]
        found: Tensor = 2 * grads[0] * z
        return found


@pytest.mark.parametrize("first", [True, False])
def test_a_function_that_cannot_be_tried_does_not_hide_another(first: bool) -> None:
    class Model(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            one, two = OfComplex.apply(torch.complex(y, y)), Squared.apply(y, 0.1)
            found: Tensor = one + two if first else two + one
            return found

    torch.manual_seed(0)
    assert misfits(loss_of(Model(5, 3), (5,))).keys() == {"Squared"}


def test_a_function_without_a_second_derivative_is_right() -> None:
    assert misfit(Squared, [torch.zeros(3, dtype=torch.float64), 0.5]) == 0


class Scaled(torch.autograd.Function):
    """x, whose backward pass is linear in what it is given only up to its size: G, which J'u gives, is off."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *grads: Tensor) -> Tensor:
        return grads[0] * grads[0].abs().clamp(max=2)


def test_parts_that_do_not_add_up_are_seen() -> None:
    class Model(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = Scaled.apply(super().forward(x))
            return found

    torch.manual_seed(0)
    assert imbalance(loss_of(nn.Sequential(Model(5, 4), nn.Tanh(), nn.Linear(4, 3)), (5,))) > 1e-2
