import itertools

import pytest
import torch
from torch import nn

from runner.arch.mlp import MLP
from runner.errors import BadInput
from runner.init import Independent


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("k", [2, 6, 10, 14, 18])
def test_parameter_count_of_the_blobs_networks(k: int) -> None:
    """2-k-k-2 with biases (Sagun et al.): k^2 + 6k + 2 parameters."""
    assert count(MLP((2,), 2, base_width=k, depth=3, bias=True)) == k * k + 6 * k + 2


def test_default_is_eight_weight_layers_of_fifty() -> None:
    model = MLP((50,), 1, width=1)
    assert count(model) == 7 * 50 * 50 + 50
    assert len(list(model.parameters())) == 8


@pytest.mark.parametrize("residual", [False, True])
def test_depth_counts_weight_layers(residual: bool) -> None:
    for depth in (4, 8):
        model = MLP((3,), 2, width=0.1, depth=depth, residual=residual)
        assert sum(isinstance(module, nn.Linear) for module in model.modules()) == depth


def test_one_weight_layer_is_a_linear_map() -> None:
    model = MLP((3, 2), 4, depth=1)
    x = torch.randn(5, 3, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model(x), x.flatten(1) @ model.head.weight.T)


@pytest.mark.parametrize(
    ("norm", "residual", "bias", "activation"),
    [
        *itertools.product(("none", "batch", "layer", "group"), (False, True), (False, True), ("relu",)),
        *itertools.product(("none",), (False, True), (False,), ("identity", "tanh", "softplus", "gelu", "smoolu")),
    ],
)
def test_every_option_trains(norm: str, residual: bool, bias: bool, activation: str) -> None:
    options = {"norm": norm, "residual": residual, "bias": bias, "activation": activation}
    model = MLP((1, 4, 4), 3, width=0.33, depth=4, **options)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    Independent("normal", gain=4.0)(model, generator=generator, width=16)  # smoolu underflows below about 0.01
    outputs = model(torch.randn(6, 1, 4, 4, generator=generator))
    assert outputs.shape == (6, 3)
    outputs.square().mean().backward()
    gradients = [p.grad for p in model.parameters()]
    assert all(g is not None and g.isfinite().all() for g in gradients)
    assert any(g.abs().max() > 0 for g in gradients if g is not None)


def test_residual_block_adds_the_branch_over_the_root_of_the_blocks() -> None:
    """h + W2 relu(W1 h) / sqrt(blocks)."""
    model = MLP((5,), 1, base_width=4, depth=6, residual=True)
    stem, first, second, third, fourth, head = (p.detach() for p in model.parameters())
    x = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    h = torch.relu(x @ stem.T)
    h = h + torch.relu(h @ first.T) @ second.T / 2**0.5
    h = h + torch.relu(h @ third.T) @ fourth.T / 2**0.5
    torch.testing.assert_close(model(x), h @ head.T)


def test_he_preserves_the_mean_square_through_relu_layers() -> None:
    """He et al. (2015): E f^2 = 2 E |h|^2 / n for the last hidden layer h, with E |h|^2 = |x|^2 at d = n."""
    n, draws = 128, 100
    generator = torch.Generator().manual_seed(0)
    x = torch.nn.functional.normalize(torch.randn(1, n, generator=generator))
    model = MLP((n,), 64, base_width=n, depth=6)
    squares = []
    for _ in range(draws):
        Independent("normal", gain=2**0.5)(model, generator=generator, width=n)
        squares.append(model(x).square().mean())
    assert torch.stack(squares).mean().item() * n / 2 == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 0}, "arch.depth"),
        ({"depth": 5, "residual": True}, "arch.depth should be even"),
        ({"depth": 2, "residual": True}, "arch.depth should be even"),
        ({"width": 0.0}, "width should be a positive number"),
        ({"activation": "swish"}, "arch.activation"),
        ({"norm": "instance"}, "arch.norm"),
        ({"outputs": 0}, "arch.outputs"),
    ],
)
def test_refuses(options: dict, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        MLP((4,), **{"outputs": 1, **options})
