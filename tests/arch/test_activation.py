from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from runner.arch.activation import Activation, activation_layer
from runner.errors import BadInput


def smoolu(x: Tensor) -> list[Tensor]:
    """Value and three derivatives for x > 0, with u = 1/x; exactly 0 for x <= 0."""
    positive = x > 0
    u = 1 / torch.where(positive, x, 1.0).double()
    e = torch.exp(-u)
    return [torch.where(positive, value, 0.0) for value in (e / u, e * (1 + u), e * u**3, e * (u**5 - 3 * u**4))]


def tanh(x: Tensor) -> list[Tensor]:
    t = torch.tanh(x.double())
    d = 1 - t * t
    return [t, d, -2 * t * d, d * (6 * t * t - 2)]


def softplus(x: Tensor) -> list[Tensor]:
    s = torch.sigmoid(x.double())
    d = s * torch.sigmoid(-x.double())
    return [torch.logaddexp(x.double(), torch.zeros(())), s, d, d * (1 - 2 * s)]


def gelu(x: Tensor) -> list[Tensor]:
    x = x.double()
    cdf = torch.special.ndtr(x)
    pdf = torch.exp(-x * x / 2) / (2 * torch.pi) ** 0.5
    return [x * cdf, cdf + x * pdf, pdf * (2 - x * x), pdf * (x**3 - 4 * x)]


CLOSED: dict[Activation, Callable[[Tensor], list[Tensor]]] = {
    "smoolu": smoolu,
    "tanh": tanh,
    "softplus": softplus,
    "gelu": gelu,
}


def derivatives(f: Callable[[Tensor], Tensor], x: Tensor, order: int) -> list[Tensor]:
    x = x.clone().requires_grad_()
    values = [f(x)]
    for _ in range(order):
        values.append(torch.autograd.grad(values[-1].sum(), x, create_graph=True)[0])
    return [value.detach() for value in values]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 3e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("name", CLOSED)
def test_value_and_three_derivatives(name: Activation, dtype: torch.dtype, tolerance: float) -> None:
    x = torch.cat([torch.linspace(-6, 6, 101), torch.tensor([0.03, 0.3, 15.0, 25.0, -25.0])]).to(dtype)
    for found, expected in zip(derivatives(activation_layer(name), x, 3), CLOSED[name](x), strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_smoolu_is_exactly_zero_with_all_derivatives_at_and_below_zero(dtype: torch.dtype) -> None:
    tiny = torch.finfo(dtype).tiny
    x = torch.tensor([-1e30, -1.0, -1e-3, -tiny, -0.0, 0.0, tiny, 1e-30, 1e-4, 1e-3, 1.1e-3], dtype=dtype)
    for value in derivatives(activation_layer("smoolu"), x, 3):
        assert torch.equal(value, torch.zeros_like(x))


def test_smoolu_where_it_leaves_zero() -> None:
    x = torch.logspace(-2.8, -1, 200, dtype=torch.float64)
    for found, expected in zip(derivatives(activation_layer("smoolu"), x, 3), smoolu(x), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-300)


@pytest.mark.parametrize("name", CLOSED)
def test_second_derivatives_against_differences(name: Activation) -> None:
    x = torch.tensor([-2.0, -0.5, 0.2, 0.7, 3.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(activation_layer(name), x)


def test_relu_and_identity() -> None:
    x = torch.tensor([-2.0, 0.0, 3.0])
    assert torch.equal(activation_layer("relu")(x), torch.tensor([0.0, 0.0, 3.0]))
    assert torch.equal(activation_layer("identity")(x), x)


def test_refuses_an_unknown_name() -> None:
    with pytest.raises(BadInput, match=r"arch.activation should be one of relu, .*, found swish"):
        activation_layer("swish")  # type: ignore[arg-type]
