"""From the expansion of the outputs to the two parts of the curvature of the loss."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from runner.curvature.taylor.context import transformed


def _moves(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_floating_point()


def _cast(tree: Any, dtype: torch.dtype) -> Any:
    return tree_map(lambda leaf: leaf.to(dtype) if _moves(leaf) else leaf, tree)


def _floats(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_flatten(tree)[0] if _moves(leaf)]


def _inner(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    return torch.stack([(p * q).sum() for p, q in zip(a, b, strict=True)]).sum()


def split_terms(
    loss_fn: Callable[[Any, Any], Tensor], f0: Any, f1: Any, f2: Any, targets: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """v'Hv, v'Gv and v'H_r v as 0-d tensors, from f(w + t v) = f0 + t f1 + t^2/2 f2 (stacked over the batch).

    v'Gv = f1' [d2L/dF2] f1 and v'H_r v = <dL/dF, f2>, H = G + H_r. `loss_fn(outputs, targets)` returns the mean loss
    and is twice differentiable in the outputs; f0, f1, f2 have its outputs' structure, of any nesting. It is evaluated
    in float64 where it can be: outputs are few, and what moves all logits alike cancels, so that rounding would leave a
    convex loss with v'Gv < 0.
    """
    try:
        fine = [_cast(tree, torch.float64) for tree in (f0, f1, f2, targets)]
        return _terms(loss_fn, fine[0], fine[1], fine[2], fine[3], _floats(f0)[0].dtype)
    except RuntimeError:  # the function holds float32 tensors of its own, or the device has no float64
        return _terms(loss_fn, f0, f1, f2, targets, _floats(f0)[0].dtype)


def _terms(
    loss_fn: Callable[[Any, Any], Tensor], f0: Any, f1: Any, f2: Any, targets: Any, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    leaves, structure = tree_flatten(f0)
    free = [index for index, leaf in enumerate(leaves) if _moves(leaf)]

    def loss(*values: Tensor) -> Tensor:
        filled = {index: value.clone() for index, value in zip(free, values, strict=True)}  # it may write to them
        return loss_fn(tree_unflatten([filled.get(i, leaf) for i, leaf in enumerate(leaves)], structure), targets)

    first, second = _floats(f1), _floats(f2)
    differentiate = _by_transform if transformed() else _by_graph
    slope, curved = differentiate(loss, [leaves[index].detach() for index in free], first)
    gGg, gHrg = _inner(curved, first), _inner(slope, second)
    return (gGg + gHrg).to(dtype), gGg.to(dtype), gHrg.to(dtype)


def _by_graph(loss: Callable[..., Tensor], values: list[Tensor], u: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """dL/dF and [d2L/dF2] u by double backward."""
    with torch.enable_grad():
        values = [value.requires_grad_() for value in values]
        slope = _grad(loss(*values), values, create_graph=True)
        curved = _grad(_inner(slope, u), values)
    return [part.detach() for part in slope], curved


def _by_transform(loss: Callable[..., Tensor], values: list[Tensor], u: list[Tensor]) -> tuple[Any, Any]:
    """The same inside vmap, where tensors cannot be made leaves."""
    which = tuple(range(len(values)))
    slope, pull, *_ = torch.func.vjp(torch.func.grad(loss, argnums=which), *values)
    return slope, pull(tuple(u))


def _grad(y: Tensor, x: list[Tensor], create_graph: bool = False) -> list[Tensor]:
    """dy/dx, zeros where y does not depend on x (the second derivative of a loss that is linear in the outputs)."""
    if not y.requires_grad:
        return [torch.zeros_like(leaf) for leaf in x]
    return list(torch.autograd.grad(y, x, create_graph=create_graph, allow_unused=True, materialize_grads=True))
