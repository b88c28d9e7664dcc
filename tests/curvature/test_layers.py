"""Activations and gradients layer by layer: against numbers by hand, and against plain autograd."""

import pytest
import torch
from cases import assert_same, conv_case, everything_of
from torch import Tensor, nn

from runner.arch.mlp import MLP
from runner.curvature.batch_loss import BatchLoss
from runner.curvature.layers import layers


def half_square(outputs: Tensor, targets: Tensor) -> Tensor:
    return 0.5 * (outputs - targets).square().sum(1).mean()


def by_hand() -> BatchLoss:
    """x = (1, 0), (0, 1), (0, 3) through W = [[3, -1], [4, -1], [-1, -2]], a ReLU, and a = (1, 2, 5), to the target 1:
    z = (3, 4, -1), (-1, -1, -2), (-3, -3, -6), f = 11, 0, 0, and dl/df = f - y = 10, -1, -1."""
    model = MLP((2,), 1, base_width=3, depth=2)
    model.body[0][0].weight.data = torch.tensor([[3.0, -1.0], [4.0, -1.0], [-1.0, -2.0]])
    model.head.weight.data = torch.tensor([[1.0, 2.0, 5.0]])
    return BatchLoss(model, half_square, torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 3.0]]), torch.ones(3, 1))


def test_numbers_by_hand() -> None:
    first, head = layers(by_hand())
    assert (first.name, head.name) == ("body.0.0", "head")
    expected = {
        "activation": ([0.5**0.5, 0.5**0.5, 4.5**0.5], [(25 / 3) ** 0.5, 0.0, 0.0]),
        "zero": (0.5, 7 / 9),
        "dead": (0.0, 1 / 3),  # the third unit
        "signal": ([10 * 5**0.5, 0.0, 0.0], [10.0, 1.0, 1.0]),  # dl/dz = 10 (1, 2, 0) where z > 0
        "gradient": (10 * 5**0.5 / 3, 50 / 3),  # dL/dW = 1/3 (10, 20, 0) (1, 0)', dL/da = 1/3 10 (3, 4, 0)
    }
    for name, values in expected.items():
        for layer, value in zip((first, head), values, strict=True):
            torch.testing.assert_close(getattr(layer, name), torch.tensor(value), rtol=1e-6, atol=0)


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_against_autograd(norm: str) -> None:
    """The signal by autograd with respect to a shift of the layer's output, the activation by a forward pass to it."""
    case = conv_case(norm, "train")
    loss = BatchLoss(*case)
    found = {layer.name: layer for layer in layers(loss)}
    assert list(found) == ["stem", "norm1", "inner", "norm2", "head"]
    g = loss.gradient()
    with torch.random.fork_rng():
        shift = torch.zeros(6, 4, 5, 5, dtype=torch.float64, requires_grad=True)
        inner = case.model.get_submodule("inner")
        handle = inner.register_forward_hook(lambda module, args, z: z + shift)
        given = []
        other = inner.register_forward_pre_hook(lambda module, args: given.append(args[0].detach()))
        signal = torch.autograd.grad(loss(loss.weights), shift)[0] * 6
        handle.remove(), other.remove()
    torch.testing.assert_close(found["inner"].signal, signal.flatten(1).norm(dim=1))
    torch.testing.assert_close(found["inner"].activation, given[0].flatten(1).square().mean(1).sqrt())
    for name, layer in found.items():
        own = [entry.flatten() for key, entry in g.items() if key.startswith(f"{name}.")]
        torch.testing.assert_close(layer.gradient, torch.cat(own).norm())


def test_nothing_is_left_behind() -> None:
    """Also after an exception on the way, and with dropout, whose mask is that of the loss."""
    case = conv_case("batch", "train", dropout=0.5)
    loss = BatchLoss(*case)
    before = everything_of(case.model)
    head = next(layer for layer in layers(loss) if layer.name == "head")
    torch.testing.assert_close(
        head.gradient, torch.cat([loss.gradient()[f"head.{p}"].flatten() for p in ("weight", "bias")]).norm()
    )
    assert_same(before, everything_of(case.model))
    loss.inputs = loss.inputs[:, :1]  # a channel is missing
    with pytest.raises(RuntimeError):
        layers(loss)
    assert_same(before, everything_of(case.model))
    assert not any(module._forward_hooks or module._backward_hooks for module in case.model.modules())


def test_activations_in_place() -> None:
    """The signal is that of the layer's own output, not of what is written over it."""
    torch.manual_seed(0)
    found = []
    for in_place in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(2, 5), nn.ReLU(inplace=in_place), nn.Linear(5, 1))
        inputs = torch.randn(4, 2, generator=torch.Generator().manual_seed(1))
        found.append(layers(BatchLoss(model, half_square, inputs, torch.zeros(4, 1))))
    for one, other in zip(*found, strict=True):
        assert_same(vars(one), vars(other))


class Odd(nn.Module):
    """An embedding, one layer called twice, a frozen one, a parameter of the network's own, and one never called."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.words, self.inner, self.unused = nn.Embedding(5, 3), nn.Linear(3, 3), nn.Linear(3, 3)
        self.frozen = nn.Linear(3, 1).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.frozen(self.inner(self.inner(input=self.words(x)).tanh()))


def test_odd_layers() -> None:
    words, inner, again, frozen, whole = layers(
        BatchLoss(Odd(), half_square, torch.tensor([0, 1, 4]), torch.zeros(3, 1))
    )
    assert [layer.name for layer in (words, inner, again, frozen, whole)] == [
        "words",
        "inner",
        "inner",
        "frozen",
        "Odd",
    ]
    assert words.activation is None
    assert words.dead is None
    assert words.signal is not None
    assert frozen.gradient is None
    assert frozen.signal is not None
    assert inner.gradient == again.gradient
    assert not torch.equal(inner.activation, again.activation)
    assert whole.gradient is not None
