"""The public functions, small networks of every kind of layer, and the dense Hessian by autograd as the oracle that
knows nothing of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from runner import curvature

NORMS: dict[str, Callable[[int], nn.Module]] = {
    "none": lambda c: nn.Identity(),
    "batch": lambda c: nn.BatchNorm2d(c),
    "layer": lambda c: nn.GroupNorm(1, c),
    "group": lambda c: nn.GroupNorm(2, c),
    "instance": lambda c: nn.InstanceNorm2d(c, affine=True, track_running_stats=True),
}

METHODS = ("taylor", "double_backward")
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "split": curvature.split,
    "hvp": curvature.hvp,
    "finite_difference": lambda *args: curvature.finite_difference(*args, step=1e-3),
}


def half_square(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().sum(1).mean() / 2


@dataclass
class Case:
    model: nn.Module
    loss_fn: Callable[[Any, Any], Tensor]
    inputs: Tensor
    targets: Tensor

    def __iter__(self) -> Any:
        return iter((self.model, self.loss_fn, self.inputs, self.targets))


class Net(nn.Module):
    """Convolution, normalisation, activation, a skip connection, pooling, dropout, a linear head."""

    def __init__(self, norm: str, activation: type[nn.Module] = nn.Tanh, dropout: float = 0.0) -> None:
        super().__init__()
        self.stem, self.norm1 = nn.Conv2d(2, 4, 3, padding=1), NORMS[norm](4)
        self.inner, self.norm2 = nn.Conv2d(4, 4, 3, padding=1, bias=False), NORMS[norm](4)
        self.activation, self.dropout, self.head = activation(), nn.Dropout(dropout), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.activation(self.norm1(self.stem(x)))
        h = h + self.activation(self.norm2(self.inner(h)))
        return self.head(self.dropout(h.mean((2, 3))))


def conv_case(norm: str, mode: str, activation: type[nn.Module] = nn.Tanh, dropout: float = 0.0, seed: int = 0) -> Case:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Net(norm, activation, dropout).double().train(mode == "train")
        for name, buffer in model.named_buffers():
            if "running_var" in name:
                buffer.uniform_(0.5, 2.0)
        return Case(model, nn.CrossEntropyLoss(), torch.randn(6, 2, 5, 5).double(), torch.randint(0, 3, (6,)))


def dense_hessian(case: Case) -> tuple[Tensor, Tensor]:
    """(H, g) over the flattened trainable parameters, row by row by double backward in the model's dtype."""
    parameters = {n: p.detach().clone().requires_grad_() for n, p in case.model.named_parameters() if p.requires_grad}
    buffers = {n: b.clone() for n, b in case.model.named_buffers()}
    with torch.random.fork_rng():
        loss = case.loss_fn(functional_call(case.model, {**parameters, **buffers}, (case.inputs,)), case.targets)
    leaves = list(parameters.values())
    g = torch.cat([e.flatten() for e in torch.autograd.grad(loss, leaves, create_graph=True)])
    rows = []
    for entry in g:
        row = torch.autograd.grad(entry, leaves, retain_graph=True, allow_unused=True, materialize_grads=True)
        rows.append(torch.cat([e.flatten() for e in row]))
    return torch.stack(rows), g.detach()


def dense_jacobian(case: Case) -> tuple[Tensor, Tensor]:
    """(J, F): the Jacobian of the stacked outputs, row by row by one backward pass each, and the outputs."""
    parameters = {n: p.detach().clone().requires_grad_() for n, p in case.model.named_parameters() if p.requires_grad}
    buffers = {n: b.clone() for n, b in case.model.named_buffers()}
    with torch.random.fork_rng():
        outputs = functional_call(case.model, {**parameters, **buffers}, (case.inputs,))
    rows = []
    for entry in outputs.flatten():
        row = torch.autograd.grad(
            entry, list(parameters.values()), retain_graph=True, allow_unused=True, materialize_grads=True
        )
        rows.append(torch.cat([e.flatten() for e in row]))
    return torch.stack(rows), outputs.detach()


def flat(vector: dict[str, Tensor]) -> Tensor:
    return torch.cat([entry.flatten() for entry in vector.values()])


def unflat(vector: Tensor, model: nn.Module) -> dict[str, Tensor]:
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    pieces = vector.split([p.numel() for p in parameters.values()])
    return {n: piece.view_as(p) for (n, p), piece in zip(parameters.items(), pieces, strict=True)}


def everything_of(model: nn.Module) -> dict[str, Any]:
    """All that a measurement must leave alone, copied."""
    return {
        "state": {k: v.clone() for k, v in model.state_dict().items()},
        "identity": [id(p) for p in model.parameters()],
        "grads": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "requires": [p.requires_grad for p in model.parameters()],
        "modes": [m.training for m in model.modules()],
        "rng": torch.get_rng_state(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "matmul": torch.backends.cuda.matmul.fp32_precision,
        "grad_mode": torch.is_grad_enabled(),
    }


def assert_same(before: Any, after: Any) -> None:
    """Equal bit for bit."""
    if isinstance(before, dict):
        assert before.keys() == after.keys()
        for key in before:
            assert_same(before[key], after[key])
    elif isinstance(before, list):
        assert len(before) == len(after)
        for one, other in zip(before, after, strict=True):
            assert_same(one, other)
    elif isinstance(before, Tensor):
        assert torch.equal(before, after)
    else:
        assert before == after
