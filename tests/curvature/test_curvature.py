"""The public functions against closed forms and against dense matrices by double backward in float64."""

import pytest
import torch
from curvature.cases import (
    METHODS,
    NORMS,
    Case,
    conv_case,
    dense_hessian,
    dense_jacobian,
    flat,
    half_square,
    unflat,
)
from torch import Tensor, nn

from runner import curvature
from runner.curvature import BatchLoss
from runner.curvature.difference import loss_difference
from runner.curvature.mixing import mixes_samples


class Quadratic(nn.Module):
    """f = w, so that the loss below is 1/2 w'Aw."""

    def __init__(self, w: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(w)

    def forward(self, x: Tensor) -> Tensor:
        return self.w


@pytest.mark.parametrize("method", METHODS)
def test_quadratic_has_its_own_matrix_as_hessian(method: str) -> None:
    A = torch.randn(5, 5, dtype=torch.float64)
    A, w = A + A.T, torch.randn(5, dtype=torch.float64)
    model, loss_fn = Quadratic(w), lambda f, y: f @ A @ f / 2
    g = A @ w
    torch.testing.assert_close(curvature.hvp(model, loss_fn, None, None).product["w"], A @ g)
    parts = curvature.split(model, loss_fn, None, None, method=method)
    torch.testing.assert_close(parts.gHg, g @ A @ g)
    torch.testing.assert_close(parts.gGg, g @ A @ g)  # linear in its weights: all curvature is the loss's
    assert parts.gHrg == 0
    estimate = curvature.finite_difference(model, loss_fn, None, None, step=0.7)  # exact at any step
    torch.testing.assert_close(estimate.gHg, g @ A @ g)


@pytest.mark.parametrize("method", METHODS)
def test_two_layer_linear_network_has_its_analytic_split(method: str) -> None:
    """f = a b x with scalars a, b: along v, f1 = (v_a b + a v_b) x and f2 = 2 v_a v_b x."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)).double()
    x, y = torch.randn(7, 1, dtype=torch.float64), torch.randn(7, 1, dtype=torch.float64)
    b, a = (p.detach().squeeze() for p in model.parameters())
    v_b, v_a = torch.randn(2, dtype=torch.float64)
    parts = curvature.split(model, half_square, x, y, [v_b.view(1, 1), v_a.view(1, 1)], method=method)
    torch.testing.assert_close(parts.gGg, (((v_a * b + a * v_b) * x) ** 2).mean())
    torch.testing.assert_close(parts.gHrg, ((a * b * x - y) * 2 * v_a * v_b * x).mean())
    torch.testing.assert_close(parts.gHg, parts.gGg + parts.gHrg)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("norm", NORMS)
def test_against_the_dense_hessian(norm: str, mode: str, method: str) -> None:
    case = conv_case(norm, mode)
    H, g = dense_hessian(case)
    J, F = dense_jacobian(case)
    p = F.softmax(1)
    d2l = torch.block_diag(*(torch.diag(q) - torch.outer(q, q) for q in p)) / len(p)
    G = J.T @ d2l @ J
    parts, product = curvature.split(*case, method=method), curvature.hvp(*case)
    scale = (g @ G @ g).abs() + (g @ (H - G) @ g).abs()
    for found, expected in ((parts.gHg, H), (parts.gGg, G), (parts.gHrg, H - G), (product.gHg, H)):
        assert abs(found - g @ expected @ g) < 1e-12 * scale
    torch.testing.assert_close(flat(product.product), H @ g, rtol=1e-9, atol=1e-12)
    v = torch.randn_like(g)
    along = curvature.split(*case, unflat(v, case.model), method=method)
    for found, expected in ((along.gHg, H), (along.gGg, G), (along.gHrg, H - G)):
        torch.testing.assert_close(found, v @ expected @ v, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("loss_fn", [nn.CrossEntropyLoss(), nn.CrossEntropyLoss(label_smoothing=0.2)])
def test_parts_add_up_and_G_is_never_negative(loss_fn: nn.Module, method: str) -> None:
    case = conv_case("batch", "train", nn.GELU)
    for seed in range(20):
        torch.manual_seed(seed)
        direction = [torch.randn_like(p) for p in case.model.parameters()]
        parts = curvature.split(case.model, loss_fn, case.inputs, case.targets, direction, method=method)
        assert parts.gGg >= 0
        assert abs(parts.gHg - parts.gGg - parts.gHrg) <= 1e-12 * (parts.gGg + abs(parts.gHrg))


LOSSES = {
    "weighted": nn.CrossEntropyLoss(weight=torch.tensor([1.0, 3.0, 0.2], dtype=torch.float64)),
    "smoothed": nn.CrossEntropyLoss(label_smoothing=0.3),
    "ignoring": nn.CrossEntropyLoss(ignore_index=1, weight=torch.tensor([2.0, 1.0, 0.5], dtype=torch.float64)),
    "multi-margin": nn.MultiLabelSoftMarginLoss(),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", LOSSES)
def test_any_twice_differentiable_loss(name: str, method: str) -> None:
    """Also those whose mean is not the mean over samples: the weights of the batch's labels normalise it."""
    case = conv_case("batch", "train")
    targets = torch.rand(6, 3).double() if name == "multi-margin" else torch.tensor([0, 1, 2, 0, 1, 2])
    case = Case(case.model, LOSSES[name], case.inputs, targets)
    H, g = dense_hessian(case)
    parts = curvature.split(*case, method=method)
    assert parts.gGg >= 0
    assert abs(parts.gHg - g @ H @ g) < 1e-11 * (parts.gGg + abs(parts.gHrg))


@pytest.mark.parametrize("method", METHODS)
def test_a_model_linear_in_its_parameters_has_no_residual_part(method: str) -> None:
    model = nn.Linear(4, 3).double()
    x, y = torch.randn(9, 4, dtype=torch.float64), torch.randint(0, 3, (9,))
    parts = curvature.split(model, nn.CrossEntropyLoss(), x, y, method=method)
    assert parts.gHrg == 0
    torch.testing.assert_close(parts.gHg, parts.gGg)


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_finite_difference_converges_at_first_order_on_smooth_networks(norm: str) -> None:
    case = conv_case(norm, "train", nn.Softplus)
    exact = curvature.hvp(*case).gHg
    steps = [1e-3, 1e-4, 1e-5]
    errors = [abs(curvature.finite_difference(*case, step=mu).gHg - exact).item() for mu in steps]
    assert 8 < errors[0] / errors[1] < 12
    assert 8 < errors[1] / errors[2] < 12


def test_loss_form_converges_to_the_same_curvature() -> None:
    case = conv_case("none", "train", nn.Softplus)
    loss = BatchLoss(*case)
    exact, g = curvature.hvp(*case).gHg, loss.gradient()
    errors = [abs(loss_difference(loss, g, mu) - exact).item() for mu in (1e-2, 1e-3)]
    assert 7 < errors[0] / errors[1] < 13


def test_the_dropout_mask_is_that_of_the_coming_forward_pass() -> None:
    case = conv_case("none", "train", dropout=0.5)
    torch.manual_seed(3)
    found = curvature.hvp(*case).gHg
    H, g = dense_hessian(case)  # draws the mask from the same state
    torch.testing.assert_close(found, g @ H @ g, rtol=1e-9, atol=1e-12)


def test_frozen_and_tied_parameters() -> None:
    case = conv_case("none", "train")
    case.model.stem.weight.requires_grad_(False)  # type: ignore[union-attr]
    H, g = dense_hessian(case)
    result = curvature.hvp(*case)
    assert "stem.weight" not in result.product
    torch.testing.assert_close(result.gHg, g @ H @ g, rtol=1e-9, atol=1e-12)

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
            self.b.weight = self.a.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.b(torch.tanh(self.a(x)))

    model, x, y = Tied().double(), torch.randn(5, 3).double(), torch.randn(5, 3).double()
    parts = curvature.split(model, half_square, x, y)
    w = [p.detach().clone() for p in model.parameters()]
    g = curvature.hvp(model, half_square, x, y).product  # names once each
    assert list(g) == ["a.weight", "a.bias", "b.bias"]

    def along(t: float) -> Tensor:
        gradient = BatchLoss(model, half_square, x, y).gradient()
        moved = {n: p + t * gradient[n] for (n, _), p in zip(model.named_parameters(), w, strict=True)}
        return BatchLoss(model, half_square, x, y)(moved)

    h = 1e-3
    central = (along(h) - 2 * along(0) + along(-h)) / h**2
    torch.testing.assert_close(parts.gHg, central, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("method", METHODS)
def test_several_outputs_and_a_loss_with_weights_of_its_own(method: str) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 2), nn.Linear(2, 4)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            h = torch.tanh(self.a(x))
            return {"hidden": h, "logits": self.b(h)}

    weighted = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 0.5, 1.0]))

    class Loss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weighted = weighted

        def forward(self, outputs: dict[str, Tensor], y: Tensor) -> Tensor:
            return self.weighted(outputs["logits"], y) + outputs["hidden"].square().mean()

    model, x, y = Two(), torch.randn(6, 3), torch.randint(0, 4, (6,))
    parts = curvature.split(model, Loss(), x, y, dtype=torch.float64, method=method)
    assert parts.gHg.dtype == torch.float64
    assert abs(parts.gHg - parts.gGg - parts.gHrg) < 1e-12 * (parts.gGg + abs(parts.gHrg))


def test_an_output_of_the_batch_as_a_whole() -> None:
    """A network that computes a part of its loss itself, 0-d: it mixes the samples."""

    class Penalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(3, 4)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            logits = torch.tanh(self.a(x))
            return {"logits": logits, "penalty": logits.square().mean()}

    def loss(outputs: dict[str, Tensor], y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs["logits"], y) + outputs["penalty"]

    model, x, y = Penalised().double(), torch.randn(6, 3).double(), torch.randint(0, 4, (6,))
    found = [curvature.split(model, loss, x, y, method=method) for method in METHODS]
    for part in ("gHg", "gGg", "gHrg"):
        torch.testing.assert_close(getattr(found[0], part), getattr(found[1], part))
    assert mixes_samples(BatchLoss(model, loss, x, y))


def test_autocast_and_no_grad_around_the_call_do_not_matter() -> None:
    case = conv_case("batch", "train")
    expected = curvature.split(*case)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        found = curvature.split(*case)
    assert (found.gHg, found.gGg, found.gHrg) == (expected.gHg, expected.gGg, expected.gHrg)


@pytest.mark.parametrize("method", METHODS)
def test_attention_has_second_derivatives(method: str) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).double()
    model = nn.Sequential(layer, nn.Flatten(), nn.Linear(24, 2).double())
    x, y = torch.randn(4, 3, 8).double(), torch.randint(0, 2, (4,))
    parts = curvature.split(model, nn.CrossEntropyLoss(), x, y, method=method)
    assert abs(parts.gHg - parts.gGg - parts.gHrg) < 1e-11 * (parts.gGg + abs(parts.gHrg))
