"""How many digits single precision keeps on the network that matters most."""

import pytest
import torch
from torch import nn

from runner.arch.activation import Activation
from runner.arch.resnet import CifarResNet
from runner.curvature.batch_loss import BatchLoss
from runner.curvature.exact import split_by_double_backward
from runner.curvature.forward import split
from runner.init import Independent

# Of |gGg| + |gHrg|. With ReLU the rounding of the forward pass itself flips masks near their kink, whatever the method
# (double backward in fp32 is off by up to 2.4e-4 as well): the sweep's own rounding is what a smooth network shows.
TOLERANCE: dict[Activation, float] = {"softplus": 5e-6, "relu": 5e-4}


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("activation", TOLERANCE)
def test_fp32_on_a_freshly_initialised_resnet50(activation: Activation, compiled: bool) -> None:
    """And fp64 within 1e-10, of double backward in fp64 along the same direction."""
    model = CifarResNet((3, 32, 32), 100, width=1, activation=activation)
    Independent("normal", gain=2**0.5)(model, generator=torch.Generator().manual_seed(0), width=16)
    batch = torch.randn(16, 3, 32, 32), torch.randint(0, 100, (16,))
    single = BatchLoss(model, nn.CrossEntropyLoss(), *batch)
    double = BatchLoss(model, nn.CrossEntropyLoss(), *batch, dtype=torch.float64)
    g = single.gradient()
    v = {name: entry.double() for name, entry in g.items()}
    expected = split_by_double_backward(double, v)
    scale = expected.gGg.abs() + expected.gHrg.abs()
    for loss, direction, tolerance in ((single, g, TOLERANCE[activation]), (double, v, 1e-10)):
        found = split(loss, direction, compiled=compiled)
        for name in ("gHg", "gGg", "gHrg"):
            assert abs(getattr(found, name) - getattr(expected, name)) < tolerance * scale, (name, loss.dtype)


@pytest.mark.parametrize("weight", [None, torch.linspace(0.5, 2, 10)])
def test_the_terms_of_a_loss_that_holds_tensors_are_taken_in_double_precision_too(weight: torch.Tensor | None) -> None:
    """What moves all logits alike cancels: in fp32 a convex loss would be left with gGg < 0."""
    torch.manual_seed(0)
    loss = BatchLoss(nn.Linear(3, 10), nn.CrossEntropyLoss(weight=weight), torch.randn(50, 3), torch.arange(50) % 10)
    f1 = torch.randn(50, 10) * 1e-4 + torch.randn(50, 1) * 1e3
    f0, nothing = torch.randn(50, 10), torch.zeros(50, 10)
    gGg = loss.split_terms(f0, f1, nothing)[1]
    assert gGg.dtype == torch.float32
    exact = BatchLoss(nn.Linear(3, 10).double(), nn.CrossEntropyLoss(weight=weight), loss.inputs, loss.targets)
    torch.testing.assert_close(gGg, exact.split_terms(f0.double(), f1.double(), nothing.double())[1].float())
