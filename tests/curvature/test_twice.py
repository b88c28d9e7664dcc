"""Second derivatives of what torch differentiates wrongly a second time, against central differences of gradients."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from runner import curvature

STEP = 1e-5


class BiasOnly(nn.Module):
    """A normalisation with a bias and no weight, of inputs that stand still or move."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], moving: bool) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4) if moving else nn.Identity()
        self.bias, self.last = nn.Parameter(torch.randn(4)), nn.Linear(4, 2)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.function(self.first(x), self.bias)))


NORMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "layer": lambda x, b: F.layer_norm(x, (4,), None, b),
    "layer, by name": lambda x, b: F.layer_norm(x, (4,), bias=b),
    "batch": lambda x, b: F.batch_norm(x, None, None, None, b, training=True),
    "instance": lambda x, b: F.instance_norm(x[:, :, None] * torch.arange(1.0, 4), None, None, None, b).sum(2),
    "torch's layer": lambda x, b: torch.layer_norm(x, (4,), None, b),
    "torch's batch": lambda x, b: torch.batch_norm(x, None, b, None, None, True, 0.1, 1e-5, False),
    "torch's instance": lambda x, b: torch.instance_norm(
        x[:, :, None] * torch.arange(1.0, 4), None, b, None, None, True, 0.1, 1e-5, False
    ).sum(2),
}
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "weight norm": lambda: nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)), nn.Tanh(), nn.Linear(3, 2)
    ),
    "weight norm, last dimension": lambda: nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Linear(4, 3), dim=1), nn.Tanh(), nn.Linear(3, 2)
    ),
    **{f"{name}, {moving}": lambda f=f, moving=moving: BiasOnly(f, moving)
       for name, f in NORMS.items() for moving in (False, True)},
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_a_product_with_the_hessian(name: str) -> None:
    """Hv along a random v: H by parts that are left out would not be symmetric, and right along g alone."""
    torch.manual_seed(0)
    model = NETWORKS[name]().double()
    x, y = torch.randn(5, 4).double(), torch.randn(5, 2).double()
    v = {key: torch.randn_like(p) for key, p in model.named_parameters()}

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return 0.5 * (outputs - targets).square().sum(1).mean()

    def gradient(t: float) -> Tensor:
        w = {key: (p.detach() + t * v[key]).requires_grad_() for key, p in model.named_parameters()}
        found = torch.autograd.grad(loss(functional_call(model, w, (x,)), y), list(w.values()))
        return torch.cat([part.flatten() for part in found])

    truth = (gradient(STEP) - gradient(-STEP)) / (2 * STEP)
    along = torch.cat([part.flatten() for part in v.values()]) @ truth
    exact = curvature.hvp(model, loss, x, y, v)
    product = torch.cat([part.flatten() for part in exact.product.values()])
    assert (product - truth).norm() < 1e-7 * truth.norm()
    for method in ("taylor", "double_backward"):
        parts = curvature.split(model, loss, x, y, v, method=method)
        assert float(parts.gHg) == pytest.approx(float(along), abs=1e-7 * float(abs(parts.gGg) + abs(parts.gHrg)))
