"""What is measured is a function of the weights; what autograd takes for a constant is one; all else is refused."""

import copy
import random
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from curvature.cases import FUNCTIONS, METHODS, half_square
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.utils.checkpoint import checkpoint

from runner import curvature
from runner.curvature import UnsupportedOperation


class Scaled(nn.Module):
    """tanh(a x) times something that is computed of it under a context, in which it is a constant."""

    def __init__(self, context: Callable[[], Any]) -> None:
        super().__init__()
        self.a, self.context = nn.Linear(3, 4), context

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.a(x))
        with self.context():
            size, (first, _) = h.square().sum(), h.chunk(2, 1)
        return h * size.exp() + first.clone().sum()


CONTEXTS = {"no_grad": torch.no_grad, "set_grad_enabled": lambda: torch.set_grad_enabled(False), "none": nullcontext}


@pytest.mark.parametrize("outside", [nullcontext, torch.no_grad])
@pytest.mark.parametrize("context", CONTEXTS)
def test_a_networks_own_no_grad_makes_constants(context: str, outside: Callable[[], Any]) -> None:
    model, x, y = Scaled(CONTEXTS[context]).double(), torch.randn(5, 3).double(), torch.randn(5, 4).double()
    with outside():
        found = [curvature.split(model, half_square, x, y, method=method) for method in METHODS]
    for part in ("gHg", "gGg", "gHrg"):
        torch.testing.assert_close(getattr(found[0], part), getattr(found[1], part))


RETURNED: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda h: h.contiguous(),
    "to": lambda h: h.to(h.dtype),
    "dropout": lambda h: nn.functional.dropout(h, 0.0),
    "reshape": lambda h: h.reshape(h.shape),
}


@pytest.mark.parametrize("name", RETURNED)
def test_what_no_grad_returns_as_it_was_is_no_constant(name: str) -> None:
    class Returned(Scaled):
        def forward(self, x: Tensor) -> Tensor:
            h = torch.tanh(self.a(x))
            with torch.no_grad():
                same = RETURNED[name](h)
            return h * same

    case = Returned(nullcontext).double(), half_square, torch.randn(5, 3).double(), torch.randn(5, 4).double()
    found = [curvature.split(*case, method=method) for method in METHODS]
    torch.testing.assert_close(found[0].gHg, found[1].gHg)


class Shared(nn.Module):
    """A module that stands under two names, another that is applied three times, and a parameter of two modules."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Tanh())
        self.stem, self.layers, self.head = self.body[0], nn.ModuleList([nn.Linear(4, 4)] * 3), nn.Linear(4, 4)
        self.head.weight = self.stem.weight

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x)
        for layer in self.layers:
            h = torch.tanh(layer(h))
        return self.head(h)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_modules_that_are_held_twice(name: str) -> None:
    model, x, y = Shared().double(), torch.randn(6, 4).double(), torch.randn(6, 4).double()
    before = {key: (tensor, tensor.clone()) for key, tensor in model.state_dict(keep_vars=True).items()}
    twin = copy.deepcopy(model)
    loss = half_square(twin(x), y)
    g = torch.autograd.grad(loss, list(twin.parameters()), create_graph=True)
    v = [one.detach() for one in g]
    Hv = torch.autograd.grad(sum((a * b).sum() for a, b in zip(g, v, strict=True)), list(twin.parameters()))
    expected = sum((a * b).sum() for a, b in zip(Hv, v, strict=True))
    found = FUNCTIONS[name](model, half_square, x, y).gHg
    torch.testing.assert_close(found, expected, rtol=1e-9 if name != "finite_difference" else 0.1, atol=1e-12)
    for key, tensor in model.state_dict(keep_vars=True).items():
        assert tensor is before[key][0]
        assert torch.equal(tensor, before[key][1])


def test_activation_checkpoints_are_refused() -> None:
    """They compute the activations again when the measured weights are no longer in their places."""

    class Recomputing(Scaled):
        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(self.a, x, use_reentrant=False)

    case = Recomputing(nullcontext), half_square, torch.ones(2, 3), torch.ones(2, 4)
    with pytest.raises(ValueError, match=r"without torch\.utils\.checkpoint"):
        curvature.hvp(*case)


def test_writing_to_parameters_is_refused() -> None:
    class Writing(Scaled):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                self.a.weight.mul_(0.5)
            return self.a(x)

    with pytest.raises(ValueError, match=r"in a forward pass, found \['a.weight'\]"):
        curvature.hvp(Writing(nullcontext), half_square, torch.ones(2, 3), torch.ones(2, 4))


def test_writing_under_no_grad_is_refused() -> None:
    class Written(Scaled):
        def forward(self, x: Tensor) -> Tensor:
            h = self.a(x)
            with torch.no_grad():
                h.mul_(2)
            return h

    with pytest.raises(UnsupportedOperation, match="no_grad"):
        curvature.split(Written(nullcontext), half_square, torch.ones(2, 3), torch.ones(2, 4))


class Drawing(nn.Module):
    def __init__(self, draw: Callable[[], float]) -> None:
        super().__init__()
        self.draw = draw

    def forward(self, outputs: Tensor, y: Tensor | None = None) -> Tensor:
        return outputs * self.draw() if y is None else (outputs - y).square().mean() * (1 + self.draw())


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, outputs: Tensor, y: Tensor) -> Tensor:
        self.count += 1
        return (outputs - y).square().mean() * self.count


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    ("network", "loss", "words"),
    [
        (
            Drawing(random.random),
            half_square,
            "found draws from those of Python or NumPy",
        ),
        (Drawing(np.random.rand), half_square, "found draws from those of Python or NumPy"),
        (nn.Identity(), Drawing(lambda: float(torch.rand(()))), "loss_fn .* found one that draws random numbers"),
        (nn.Identity(), Counting(), "loss_fn .* found one that writes to its buffers"),
    ],
    ids=["python", "numpy", "loss", "buffer"],
)
def test_what_is_no_function_of_the_weights_is_refused(name: str, network: Any, loss: Any, words: str) -> None:
    """And the generators and buffers stay as they are."""
    model = nn.Sequential(nn.Linear(3, 4), network)
    before = random.getstate(), str(np.random.get_state()), torch.get_rng_state()
    with pytest.raises(ValueError, match=words):
        FUNCTIONS[name](model, loss, torch.ones(2, 3), torch.zeros(2, 4))
    assert (random.getstate(), str(np.random.get_state())) == before[:2]
    assert torch.equal(torch.get_rng_state(), before[2])
    assert not isinstance(loss, Counting) or loss.count == 0


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_hooks_make_of_parameters_stays(name: str) -> None:
    """As the masked weight of a pruned layer, which lies in the module beside its parameter."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh())
    prune.random_unstructured(model[0], "weight", 0.5)
    weight = model[0].weight
    mask = model[0].weight_mask
    found = FUNCTIONS[name](model, half_square, torch.ones(2, 3), torch.zeros(2, 4))
    assert model[0].weight is weight
    if name == "hvp":
        assert (found.product["0.weight_orig"][mask == 0] == 0).all()


class Complex(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3) * (1 + 1j))

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.a * self.b).real.sum(1, keepdim=True)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_complex_parameters_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"model should have real parameters, found b in torch\.complex64"):
        FUNCTIONS[name](Complex(), half_square, torch.randn(4, 3), torch.randn(4, 1))


@pytest.mark.parametrize("direction", [3, [1.0, 1.0], {"weight": 1.0, "bias": None}], ids=str)
@pytest.mark.parametrize("name", ["split", "hvp"])
def test_a_direction_is_of_tensors(name: str, direction: Any) -> None:
    with pytest.raises(ValueError, match="direction"):
        FUNCTIONS[name](nn.Linear(3, 1), half_square, torch.randn(4, 3), torch.randn(4, 1), direction)


@pytest.mark.parametrize("step", [0.0, float("inf"), float("nan")])
def test_a_step_is_positive_and_finite(step: float) -> None:
    with pytest.raises(ValueError, match="step should be positive and finite"):
        curvature.finite_difference(nn.Linear(3, 1), half_square, torch.randn(4, 3), torch.randn(4, 1), step=step)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_inputs_that_require_gradients_leave_no_graph(name: str) -> None:
    inputs = torch.randn(4, 3, requires_grad=True)
    assert not FUNCTIONS[name](nn.Linear(3, 1), half_square, inputs, torch.randn(4, 1)).gHg.requires_grad
    assert inputs.grad is None
