"""The functions for notebooks: networks and losses that write, keep, or take ways around their modules, and outputs and
directions that are none."""

import copy
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any

import pytest
import torch
from curvature.cases import FUNCTIONS, METHODS, half_square
from torch import Tensor, nn
from torch.nn.utils import parametrize

from runner import curvature


class Network(nn.Module):
    """b(tanh(a x)), and what `also` does beside it."""

    def __init__(self, also: Callable[[Any, Tensor, Tensor], Any] = lambda model, x, h: None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.also = nn.Linear(3, 4), nn.Linear(4, 2), also
        self.kept: list[Tensor] = []
        self.others = deque[Tensor](maxlen=3)
        self.named = defaultdict[str, list[Tensor]](list)
        self.memory = torch.ones(4)
        self.again = [self.b.weight]
        self.transposed = self.b.weight.t()

    def forward(self, x: Tensor) -> Any:
        h = torch.tanh(self.a(x))
        found = self.also(self, x, h)
        y = self.b(h)
        return y if found is None else y + found


@torch.no_grad()
def _clamped(model: Network, x: Tensor, h: Tensor) -> None:
    model.a.weight.clamp_(-0.1, 0.1)


WRITES: dict[str, tuple[Callable[..., Any], str]] = {
    "data": (lambda model, x, h: model.a.weight.data.clamp_(-0.1, 0.1)[:0].sum(), "write to its parameters"),
    "no_grad": (_clamped, "write to its parameters"),
    "inputs": (lambda model, x, h: x.mul_(2)[:0].sum(), "write to its inputs"),
    "list": (lambda model, x, h: h @ model.again[0].t(), r"uses b\.weight on another way"),
    "state": (lambda model, x, h: model.memory.mul_(0.9).add_(h.detach().mean(0)).sum(), "buffers, found .* memory"),
    "attribute": (lambda model, x, h: h @ model.transposed, r"uses b\.weight on another way"),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("what", WRITES)
def test_writes_and_ways_around_the_modules_are_refused_before_they_do_harm(what: str, name: str) -> None:
    also, words = WRITES[what]
    model, x, y = Network(also), torch.randn(5, 3), torch.randn(5, 2)
    before = copy.deepcopy((dict(model.named_parameters()), x))
    with pytest.raises(ValueError, match=words):
        FUNCTIONS[name](model, half_square, x, y)
    assert all(torch.equal(p, before[0][key]) for key, p in model.named_parameters())
    assert torch.equal(x, before[1])
    assert torch.equal(model.memory, torch.ones(4))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_loss_that_writes_to_targets_or_uses_weights_is_refused(name: str) -> None:
    model, x, y = Network(), torch.randn(5, 3), torch.randn(5, 2)
    with pytest.raises(ValueError, match="write to the targets"):
        FUNCTIONS[name](model, lambda o, t: (o - t.mul_(2)).square().mean(), x, y)
    with pytest.raises(ValueError, match=r"uses .*\.\w+ on another way .*in loss_fn"):
        FUNCTIONS[name](model, lambda o, t: (o - t).square().mean() + model.a.weight.square().sum(), x, y)
    scale = torch.ones((), requires_grad=True)  # none of the model's
    FUNCTIONS[name](model, lambda o, t: (o - t).square().mean() * scale, x, y)


@pytest.mark.parametrize("method", METHODS)
def test_a_loss_may_write_to_the_outputs(method: Any) -> None:
    model, x, y = Network().double(), torch.randn(5, 3).double(), torch.randn(5, 2).double()
    found = curvature.split(model, lambda o, t: o.sub_(t).square().sum(1).mean() / 2, x, y, method=method)
    expected = curvature.split(model, half_square, x, y, method=method)
    for part in ("gHg", "gGg", "gHrg"):
        torch.testing.assert_close(getattr(found, part), getattr(expected, part))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_a_forward_pass_leaves_in_the_model_is_taken_away_again(name: str) -> None:
    def also(model: Any, x: Tensor, h: Tensor) -> None:
        model.features = h
        model.kept.append(h)
        model.others.append(h)
        model.named["h"] = [h]

    model = Network(also)
    FUNCTIONS[name](model, half_square, torch.randn(5, 3), torch.randn(5, 2))
    assert not hasattr(model, "features")
    assert [*model.kept, *model.others, *model.named] == []
    model(torch.randn(5, 3))
    kept = model.features, list(model.kept)
    FUNCTIONS[name](model, half_square, torch.randn(5, 3), torch.randn(5, 2))
    assert model.features is kept[0]
    assert all(one is other for one, other in zip(model.kept, kept[1], strict=True))


class Inner(nn.Module):
    """tanh of what a gradient step in the weights would give: their own gradient is taken in the forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.eye(2, 3).double())

    def forward(self, x: Tensor) -> Tensor:
        (g,) = torch.autograd.grad((x @ self.w.t()).square().mean(), self.w, create_graph=True)
        return torch.tanh(x @ (self.w - 0.1 * g).t())


def test_a_network_may_ask_for_gradients_in_its_own_weights() -> None:
    model, x, y = Inner(), torch.randn(5, 3).double(), torch.randn(5, 2).double()
    exact = curvature.hvp(model, half_square, x, y)
    near = curvature.finite_difference(model, half_square, x, y, step=1e-5)
    torch.testing.assert_close(near.gHg, exact.gHg, rtol=1e-3, atol=0)


def test_inputs_may_be_sparse() -> None:
    class Graph(nn.Linear):
        def forward(self, given: dict[str, Tensor]) -> Tensor:
            return torch.tanh(given["edges"] @ super().forward(given["nodes"]))

    edges, nodes, y = torch.eye(5).double(), torch.randn(5, 3).double(), torch.randn(5, 2).double()
    torch.manual_seed(0)
    model = Graph(3, 2).double()
    found = curvature.hvp(model, half_square, {"edges": edges.to_sparse(), "nodes": nodes}, y)
    assert torch.allclose(found.gHg, curvature.hvp(model, half_square, {"edges": edges, "nodes": nodes}, y).gHg)


class Sine(nn.Module):
    def forward(self, w: Tensor) -> Tensor:
        return w.sin()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_parametrizations_cache_is_not_used(name: str) -> None:
    model, x, y = Network().double(), torch.randn(5, 3).double(), torch.randn(5, 2).double()
    parametrize.register_parametrization(model.a, "weight", Sine())
    expected = FUNCTIONS[name](model, half_square, x, y).gHg
    with parametrize.cached():
        model(x)
        assert torch.equal(FUNCTIONS[name](model, half_square, x, y).gHg, expected)
        assert parametrize._cache_enabled == 1


class Held:
    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


OUTPUTS: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "complex": (lambda y: torch.exp(1j * y), "real numbers, found a tensor in torch.complex64|a complex tensor"),
    "beside": (lambda y: (y, torch.exp(1j * y)), "real numbers, found a tensor in torch.complex64|a complex tensor"),
    "object": (lambda y: Held(y), "tensors, or lists, tuples and dicts of them, found an object of the class Held"),
    "object beside": (lambda y: (y, Held(y)), "found an object of the class Held"),
    "integers": (lambda y: y.argmax(1), "at least one tensor of floating-point numbers, found none"),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("what", OUTPUTS)
def test_outputs_are_real_tensors(what: str, name: str) -> None:
    class Returns(Network):
        def forward(self, x: Tensor) -> Any:
            return OUTPUTS[what][0](super().forward(x))

    with pytest.raises(ValueError, match=OUTPUTS[what][1]):
        FUNCTIONS[name](Returns(), lambda o, t: torch.zeros(()), torch.randn(5, 3), torch.randn(5, 2))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_direction_is_dense_and_real(name: str) -> None:
    model, x, y = Network(), torch.randn(5, 3), torch.randn(5, 2)
    for change in (lambda p: p + 1j, lambda p: p.detach().to_sparse()):
        with pytest.raises(ValueError, match="should be a dense tensor of real numbers"):
            FUNCTIONS[name](model, half_square, x, y, [change(p) for p in model.parameters()])
    with pytest.raises(ValueError, match="should be a dict or a sequence of tensors, found Tensor"):
        FUNCTIONS[name](model, half_square, x, y, torch.ones(4))
    with pytest.raises(ValueError, match="a 0-d tensor, found a float"):
        FUNCTIONS[name](model, lambda o, t: 1.0, x, y)
