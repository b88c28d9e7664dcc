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


def test_g_where_a_backward_pass_has_no_derivative_at_zero() -> None:
    """That of logcumsumexp takes the logarithm of what it is given. Against J of the same outputs in plain words."""
    torch.manual_seed(0)
    model, x = nn.Linear(5, 3).double(), torch.randn(6, 5, dtype=torch.float64)
    y = torch.randint(0, 3, (6,))

    class Cumulated(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return torch.logcumsumexp(super().forward(x), 1)

    def outputs(w: Tensor, b: Tensor) -> Tensor:
        z = x @ w.T + b
        return torch.stack([torch.log(z[:, : k + 1].exp().sum(1)) for k in range(3)], 1)

    found = curvature.split(Cumulated(model), F.cross_entropy, x, y, method="double_backward")
    w, b = model.weight, model.bias
    F0 = outputs(w, b)
    J = torch.cat([j.flatten(2) for j in torch.autograd.functional.jacobian(outputs, (w, b))], 2)  # (6, 3, n)
    p = torch.softmax(F0.detach(), 1)
    g = torch.cat([one.flatten() for one in torch.autograd.grad(F.cross_entropy(F0, y), (w, b))])
    Jg = J @ g
    gGg = ((p * Jg**2).sum(1) - (p * Jg).sum(1) ** 2).mean()
    assert float(found.gGg) == pytest.approx(float(gGg), rel=1e-12)
    assert float(found.gHg) == pytest.approx(float(found.gGg + found.gHrg), rel=1e-12)
