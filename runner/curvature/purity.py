"""Is the loss a function of the weights, and is nothing written to? Looked at on copies."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from runner.curvature.batch_loss import BatchLoss
from runner.curvature.functional import NotAFunction


def check(loss: BatchLoss) -> None:
    """Raises NotAFunction, before anything is written to, where a forward pass or the loss writes to weights, inputs,
    targets or tensors that the network holds beside its buffers, or where the model's parameters reach the loss on
    another way than as its weights: from a list, as an attribute that was made of them, or in loss_fn. One forward
    pass, on copies of all these."""
    trial = copy.copy(loss)
    given = (loss.weights, loss.frozen, loss.inputs, loss.targets)
    copies = tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, given)
    trial.weights, trial.frozen, trial.inputs, trial.targets = copies
    held = {f"{path}.{key}".lstrip("."): one for path, part in loss.model.named_modules() for key, one in _plain(part)}
    kept = {name: one.clone() for name, one in held.items()}
    with torch.enable_grad():
        value = trial({name: w.requires_grad_() for name, w in trial.weights.items()})
    names = ("its parameters", "its parameters", "its inputs", "the targets")
    for name, before, after in zip(names, given, copies, strict=True):
        if not all(map(_same, tree_leaves(before), tree_leaves(after))):
            raise NotAFunction("arch", f"the network and its loss should write to nothing, found a write to {name}")
    if moved := [name for name, one in held.items() if not _same(one, kept[name])]:
        for name in moved:
            held[name].data.copy_(kept[name])
        raise NotAFunction("arch", f"the network should keep what it writes to in buffers, found a write to {moved[0]}")
    parameters = dict(loss.model.named_parameters())
    if found := _reached(value, {id(p): name for name, p in parameters.items()}):
        raise NotAFunction(
            "arch",
            "the loss should depend on the parameters by the forward pass of their modules alone, found one that uses "
            f"{found} on another way (from a list, as an attribute that was made of it, or in loss_fn)",
        )


def _plain(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Tensors that are attributes, and neither parameters nor buffers."""
    return [(key, value) for key, value in vars(module).items() if isinstance(value, Tensor)]


def _same(a: Any, b: Any) -> bool:
    if not isinstance(a, Tensor) or a.layout != torch.strided or a.is_nested:
        return True
    return torch.equal(a, b) or (a.is_floating_point() and torch.allclose(a, b, 0, 0, equal_nan=True))


def _reached(value: Tensor, names: dict[int, str]) -> str | None:
    """The first of these tensors that is a leaf of the graph."""
    waiting, seen = [value.grad_fn], set[Any]()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if id(getattr(node, "variable", None)) in names:
            return names[id(node.variable)]  # type: ignore[attr-defined]
        waiting += [above for above, _ in node.next_functions]
    return None
