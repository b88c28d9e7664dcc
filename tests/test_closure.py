import pytest
import torch
from torch import nn

from runner.closure import Closure, needs_closure
from runner.curvature import randomness
from runner.curvature.batch_loss import BatchLoss
from runner.loss import MSE
from runner.optimizer import LevenbergMarquardt


def test_who_needs_a_closure() -> None:
    w = [nn.Parameter(torch.zeros(2).double())]
    assert needs_closure(torch.optim.LBFGS(w))
    assert needs_closure(LevenbergMarquardt(w))
    for kind in (torch.optim.SGD, torch.optim.Adam, torch.optim.RMSprop):
        assert not needs_closure(kind(w))  # type: ignore[operator]


@pytest.fixture
def case() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Tanh(), nn.Linear(6, 2)).double()
    return model, torch.randn(9, 4).double(), torch.randn(9, 2).double()


def test_it_is_one_function_and_moves_nothing_else(case: tuple[nn.Module, torch.Tensor, torch.Tensor]) -> None:
    """The same dropout mask at every call; running statistics and generators are left alone."""
    model, x, y = case
    torch.manual_seed(3)
    closure = Closure(BatchLoss(model, MSE(), x, y), MSE())
    expected = MSE()(model(x), y)
    expected.backward()
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    buffers = [b.clone() for b in model.buffers()]
    state = randomness.capture(torch.device("cpu"))[0]
    for _ in range(2):
        assert closure() == expected.item()
        for p, g in zip(model.parameters(), gradients, strict=True):
            assert p.grad is not None
            assert torch.equal(p.grad, g)
        torch.testing.assert_close(closure.residuals().square().sum() / 2, expected, rtol=1e-14, atol=0)
    assert all(torch.equal(b, before) for b, before in zip(model.buffers(), buffers, strict=True))
    assert torch.equal(state, randomness.capture(torch.device("cpu"))[0])


def test_it_follows_the_parameters(case: tuple[nn.Module, torch.Tensor, torch.Tensor]) -> None:
    model, x, y = case
    closure = Closure(BatchLoss(model, MSE(), x, y), MSE())
    before = closure()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(2)
    assert closure() != before
