"""The network that trains, or several side by side: R replicas whose parameters and buffers are stacked, (R, *shape).

A step of many small networks at once takes little longer than that of one; elementwise optimizers do not notice.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from runner.curvature import functional
from runner.curvature.batch_loss import BatchLoss
from runner.curvature.side_by_side import side_by_side
from runner.curvature.vectors import Vector, norm

Rows = slice | list[int] | None  # of the stack; None is a network that stands alone

# So many floats of activations and gradients are at work at a time. More do not fit a CPU's caches, and on an
# accelerator its memory.
AT_ONCE = {"cpu": 2**22, "cuda": 2**28}

ELEMENTWISE = [
    "SGD",
    "Adam",
    "AdamW",
    "RMSprop",
    "Adagrad",
    "Adadelta",
    "Adamax",
    "NAdam",
    "RAdam",
    "Rprop",
    "ASGD",
]


def elementwise(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an update of an entry depends on nothing but that entry's own past, so that stacked networks do not
    touch. An optimizer that is none of torch's says so by an attribute of that name."""
    known = type(optimizer).__module__.startswith("torch.optim") and type(optimizer).__name__ in ELEMENTWISE
    return known or getattr(optimizer, "elementwise", False)


class Networks:
    """`model`: its parameters are a network's own, or the stack of those that still train, whose replica numbers are
    `ids`. `samples`: in a batch."""

    def __init__(self, model: nn.Module, ids: Sequence[int], stacked: bool) -> None:
        self.model, self.ids, self.stacked = model, list(ids), stacked
        self._trains = model  # in training's forward passes
        self.parameters = dict(model.named_parameters())  # walking through the modules takes time
        self.at_once = 1
        self._final: dict[str, Tensor] = {}  # of all replicas, those that have stopped
        self._unused: set[str] = set()  # parameters of a stack that get no gradient, which optimizers leave alone

    @classmethod
    def alone(cls, model: nn.Module) -> "Networks":
        return cls(model, [0], stacked=False)

    @classmethod
    def stack(cls, models: Iterator[nn.Module], device: torch.device, dtype: torch.dtype) -> "Networks":
        model = next(models)
        states = [_copied(model), *(_copied(one) for one in models)]
        model = model.to(device, dtype)
        for name, entry in _state(model).items():
            entry.data = torch.stack([state[name] for state in states]).to(entry)
        return cls(model, range(len(states)), stacked=True)

    def compile(self) -> None:
        """From now on the forward and backward passes of training run compiled; a network's random draws stay those
        that it makes without, which probes repeat. Evaluation and probes are not compiled."""
        torch._dynamo.reset()  # which compiles a piece of code for eight networks of a process, and no more
        options: dict[str, Any] = {"fallback_random": True}
        if next(self.model.parameters()).device.type == "cpu":
            # which chooses channels_last, in which torch 2.15's backward of strided 1x1 convolutions corrupts memory
            options["layout_optimization"] = False
        self._trains = cast(nn.Module, torch.compile(self.model, dynamic=False, options=options))

    @property
    def first(self) -> int | None:
        """The row of the first network, None if it stands alone."""
        return 0 if self.stacked else None

    def choose_at_once(self, loss: BatchLoss, samples: int) -> None:
        """Choose how many networks are computed at a time, by counting what one holds. `loss`: of one network and a
        few samples; `samples`: in a batch."""
        held = 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal held
            held += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss(loss.leaves())
        few = loss.samples
        self.at_once = max(1, AT_ONCE[loss.device.type] * few // (held * samples))

    def find_unused(self, loss: BatchLoss) -> None:
        """Which parameters does `loss`, of one network, not depend on?"""
        leaves = loss.leaves()
        grads = torch.autograd.grad(loss(leaves), list(leaves.values()), allow_unused=True)
        self._unused = {name for name, g in zip(leaves, grads, strict=True) if g is None}

    def parts(self, rows: Sequence[int] | None = None) -> Iterator[Rows]:
        """All networks, or these, as many at a time as fit."""
        if not self.stacked:
            yield None
            return
        for start in range(0, len(self.ids if rows is None else rows), self.at_once):
            here = slice(start, start + self.at_once)
            yield list(rows[here]) if rows is not None else slice(*here.indices(len(self.ids)))

    def outputs(self, inputs: Tensor, rows: Rows = None, own_inputs: bool = False) -> Tensor:
        """(N, …), or (R, N, …) of these rows, of inputs that they share or that are each network's own. A backward pass
        adds to the `.grad` of the model's parameters; buffers are updated as in any forward pass."""
        if rows is None:
            return (self._trains if torch.is_grad_enabled() else self.model)(inputs)
        own = {name: _view(entry, rows) for name, entry in _state(self.model).items()}

        def network(own: Vector, inputs: Tensor) -> Tensor:
            return functional.call(self.model, own, (inputs,))

        return side_by_side(network, 0, 0 if own_inputs else None)(own, inputs).contiguous()

    def each(self, function: Any, *dims: int | None) -> Any:
        """`function` of one network, over all that are stacked."""
        return side_by_side(function, *dims) if self.stacked else function

    def grad_norm(self) -> Tensor:
        """|g|, 0-d or (R,)."""
        return norm({n: p.grad for n, p in self.parameters.items() if p.grad is not None}, self.stacked)

    def clip(self, most: float) -> None:
        """Scale each network's gradient down to the norm `most`, as torch does for one."""
        if not self.stacked:
            nn.utils.clip_grad_norm_(self.parameters.values(), most)
            return
        factor = (most / (self.grad_norm() + 1e-6)).clamp(max=1)
        for p in self.parameters.values():
            if p.grad is not None:
                p.grad.mul_(factor.view(-1, *[1] * (p.dim() - 1)))

    def zero_grad(self) -> None:
        for name, p in self.parameters.items():
            written = self.stacked and p.requires_grad and name not in self._unused  # row by row
            p.grad = torch.zeros_like(p) if written else None

    def keep(self, rows: Sequence[int], optimizer: torch.optim.Optimizer) -> None:
        """Only these rows train on; the others' weights stay as they are."""
        if len(rows) == len(self.ids):
            return
        if not self.stacked:
            self.ids = [self.ids[row] for row in rows]
            return
        self._final = self.state()
        count, chosen = len(self.ids), torch.tensor(rows, dtype=torch.long)
        for entry in _state(self.model).values():
            grad, entry.grad = entry.grad, None
            entry.data = entry.data[chosen.to(entry.device)]
            entry.grad = None if grad is None else grad[chosen.to(entry.device)]
        for state in optimizer.state.values():
            for key, value in state.items():
                if isinstance(value, Tensor) and value.dim() and len(value) == count:
                    state[key] = value[chosen.to(value.device)]
        self.ids = [self.ids[row] for row in rows]

    def state(self) -> dict[str, Tensor]:
        """Parameters and buffers by name; of all replicas, those that have stopped too."""
        live = {name: entry.detach() for name, entry in _state(self.model).items()}
        if not self._final:
            return live
        rows = torch.tensor(self.ids, dtype=torch.long)
        return {name: entry.index_copy(0, rows.to(entry.device), live[name]) for name, entry in self._final.items()}

    def load(self, state: Mapping[str, Tensor], ids: Sequence[int], optimizer: torch.optim.Optimizer) -> None:
        """Take up what `state` gave, where the replicas `ids` were still training."""
        self.keep([self.ids.index(one) for one in ids], optimizer)
        rows = torch.tensor(self.ids, dtype=torch.long)
        with torch.no_grad():
            for name, entry in _state(self.model).items():
                fill(entry, state[name][rows] if self.stacked else state[name])
        if self.stacked:
            self._final = {name: state[name].to(entry) for name, entry in _state(self.model).items()}


def fill(entry: Tensor, value: Tensor) -> None:
    """Give a parameter or a buffer, which may have grown, this value."""
    if entry.shape == value.shape:
        entry.copy_(value)
    else:
        entry.data = value.to(entry, copy=True)


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: entry.detach().clone() for name, entry in _state(model).items()}


def _view(entry: Tensor, rows: slice | list[int]) -> Tensor:
    """These rows as a leaf of their own, whose gradient is written into the stack's."""
    view = entry.detach()[rows]
    if entry.requires_grad and torch.is_grad_enabled():
        view.requires_grad_()
        view.grad = None if entry.grad is None else entry.grad[rows]
    return view
