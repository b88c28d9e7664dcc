from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from runner.errors import BadInput
from runner.loss import MSE, Brier, CrossEntropy, Huber, Logistic


def draw(*shape: int) -> Tensor:
    return 2 * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


LABELS = torch.tensor([0, 2, 1, 2, 0, 1])
CASES: dict[str, tuple[nn.Module, Tensor, Tensor, Callable[[Tensor, Tensor], Tensor]]] = {
    "mse": (MSE(), draw(6, 3), draw(3, 6).T, lambda f, y: ((f - y) ** 2).sum() / 12),
    "mse without the half": (MSE(1.0), draw(6, 1), draw(1, 6).T, lambda f, y: ((f - y) ** 2).sum() / 6),
    "huber": (
        Huber(0.7),
        draw(6, 3),
        draw(3, 6).T,
        lambda f, y: F.huber_loss(f, y, reduction="sum", delta=0.7) / 6,
    ),
    "cross_entropy": (CrossEntropy(), draw(6, 3), LABELS, F.cross_entropy),
    "smoothed": (
        CrossEntropy(0.2),
        draw(6, 3),
        LABELS,
        lambda f, y: F.cross_entropy(f, y, label_smoothing=0.2),
    ),
    "brier": (Brier(), draw(6, 3), LABELS, lambda f, y: F.mse_loss(f.softmax(1), F.one_hot(y).to(f)) * 3 / 2),
    "smoothed brier": (
        Brier(1.0, 0.3),
        draw(6, 3),
        LABELS,
        lambda f, y: F.mse_loss(f.softmax(1), 0.7 * F.one_hot(y).to(f) + 0.1) * 3,
    ),
    "logistic": (
        Logistic(),
        draw(6, 1),
        (LABELS > 0).double()[:, None],
        F.binary_cross_entropy_with_logits,
    ),
}


def gradient(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    slope: Tensor = torch.func.grad(f)(x)
    return slope


def hessian(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """By double backward."""
    return torch.autograd.functional.hessian(f, x)


@pytest.mark.parametrize("case", CASES)
def test_value_gradient_and_hessian_against_pytorchs(case: str) -> None:
    loss, outputs, targets, reference = CASES[case]
    torch.testing.assert_close(loss(outputs, targets), reference(outputs, targets))
    derivatives: list[Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]] = [gradient, hessian]
    for derivative in derivatives:
        torch.testing.assert_close(
            derivative(lambda h: loss(h, targets), outputs),
            derivative(lambda h: reference(h, targets), outputs),
        )


@pytest.mark.parametrize("case", CASES)
def test_twice_differentiable_in_autograd_and_forward_over_reverse(case: str) -> None:
    loss, outputs, targets, _ = CASES[case]
    assert torch.autograd.gradgradcheck(lambda h: loss(h, targets), outputs.clone().requires_grad_())
    v = draw(*outputs.shape)
    product = torch.func.jvp(partial(gradient, lambda h: loss(h, targets)), (outputs,), (v,))[1]
    expected = torch.einsum("ncmd,md->nc", hessian(lambda h: loss(h, targets), outputs), v)
    torch.testing.assert_close(product, expected)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_is_the_mean_over_samples_in_the_outputs_dtype(case: str, dtype: torch.dtype) -> None:
    loss, outputs, targets, _ = CASES[case]
    outputs, targets = outputs.to(dtype), targets.to(dtype) if targets.is_floating_point() else targets
    whole = loss(outputs, targets)
    assert whole.shape == ()
    assert whole.dtype == dtype
    each = torch.stack([loss(outputs[i : i + 1], targets[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(whole, each.mean())
    batched = torch.func.vmap(lambda f, y: loss(f[None], y[None]))(outputs, targets)
    torch.testing.assert_close(batched, each)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("y", [0.0, 1.0])
def test_logistic_is_stable_and_precise_far_out(y: float, dtype: torch.dtype) -> None:
    f = torch.tensor([-1e4, -300.0, -35.0, -20.5, 0.0, 20.5, 35.0, 300.0, 1e4], dtype=dtype)
    targets = torch.full((1, 1), y, dtype=dtype)
    margin = ((1 - 2 * y) * f).double()
    for i, m in enumerate(margin):
        h = f[i].clone().requires_grad_()
        value = Logistic()(h.view(1, 1), targets)
        (slope,) = torch.autograd.grad(value, h, create_graph=True)
        (bend,) = torch.autograd.grad(slope, h)
        expected = [
            torch.logaddexp(m, torch.zeros_like(m)),
            (1 - 2 * y) * torch.sigmoid(m),
            torch.sigmoid(m) * torch.sigmoid(-m),
        ]
        # Where the decision is right all three are small, and right in their leading digits all the same.
        atol = torch.finfo(dtype).eps if m > 0 else 1e-300
        for found, closed in zip((value, slope, bend), expected, strict=True):
            torch.testing.assert_close(found.detach(), closed.to(dtype), rtol=1e-5, atol=atol)


def test_huber_has_bounded_derivatives() -> None:
    r = torch.linspace(-9, 9, 400, dtype=torch.float64)[:, None]
    zero = torch.zeros_like(r)
    slope = gradient(lambda h: Huber(0.7)(h, zero) * 400, r)
    assert slope.abs().max().item() == pytest.approx(0.7)
    curvature = torch.diag(hessian(lambda h: Huber(0.7)(h[:, None], zero) * 400, r[:, 0]))
    torch.testing.assert_close(curvature, (r[:, 0].abs() <= 0.7).double())


@pytest.mark.parametrize("case", ["mse", "mse without the half", "brier", "smoothed brier"])
def test_residuals_are_those_of_the_loss(case: str) -> None:
    loss, outputs, targets, _ = CASES[case]
    residuals: Tensor = loss.residuals(outputs, targets)  # type: ignore[operator]
    assert residuals.shape == (outputs.numel(),)
    torch.testing.assert_close(residuals.square().sum() / 2, loss(outputs, targets))


def test_smoothed_brier_has_no_loss_where_the_probabilities_are_the_smoothed_labels() -> None:
    q = 0.7 * F.one_hot(LABELS).double() + 0.1
    assert Brier(label_smoothing=0.3)(q.log() + 5, LABELS).item() == pytest.approx(0, abs=1e-30)


def test_refuses_to_broadcast() -> None:
    for loss in (MSE(), Huber(), Logistic()):
        with pytest.raises(BadInput, match=r"Targets should have the outputs' shape \(6, 1\), found \(6,\)"):
            loss(torch.zeros(6, 1), torch.zeros(6))


def test_refuses_options_out_of_range() -> None:
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(BadInput, match=r"loss\.delta"):
            Huber(bad)
        with pytest.raises(BadInput, match=r"loss\.factor"):
            MSE(bad)
        with pytest.raises(BadInput, match=r"loss\.factor"):
            Brier(bad)
    for bad in (-0.1, 1.1):
        with pytest.raises(BadInput, match=r"loss\.label_smoothing"):
            CrossEntropy(bad)
        with pytest.raises(BadInput, match=r"loss\.label_smoothing"):
            Brier(label_smoothing=bad)
