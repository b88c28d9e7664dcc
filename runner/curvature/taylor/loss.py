"""From the expansion of the outputs to the two parts of the curvature of the loss."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten


def _floats(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_flatten(tree)[0] if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def _inner(a: list[Tensor], b: list[Tensor]) -> Tensor:
    return torch.stack([(p * q).sum() for p, q in zip(a, b, strict=True)]).sum()


def split_terms(
    loss_fn: Callable[[Any, Any], Tensor], f0: Any, f1: Any, f2: Any, targets: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """v'Hv, v'Gv and v'H_r v as 0-d tensors, from f(w + t v) = f0 + t f1 + t^2/2 f2 (stacked over the batch).

    v'Gv = f1' [d2L/dF2] f1 and v'H_r v = <dL/dF, f2>, H = G + H_r. `loss_fn(outputs, targets)` returns the mean loss and
    is twice differentiable in the outputs; f0, f1, f2 have its outputs' structure, of any nesting.
    """
    leaves, structure = tree_flatten(f0)
    fixed = [
        leaf.detach().requires_grad_() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf
        for leaf in leaves
    ]
    free = [leaf for leaf in fixed if isinstance(leaf, Tensor) and leaf.requires_grad]
    first, second = _floats(f1), _floats(f2)
    with torch.enable_grad():
        loss = loss_fn(tree_unflatten(fixed, structure), targets)
        slope = _grad(loss, free, create_graph=True)
        along = _inner(slope, first)
        curved = _grad(along, free)
    gGg, gHrg = _inner(curved, first).detach(), _inner(slope, second).detach()
    return gGg + gHrg, gGg, gHrg


def _grad(y: Tensor, x: list[Tensor], create_graph: bool = False) -> list[Tensor]:
    """dy/dx, zeros where y does not depend on x (the second derivative of a loss that is linear in the outputs)."""
    if not y.requires_grad:
        return [torch.zeros_like(leaf) for leaf in x]
    return list(torch.autograd.grad(y, x, create_graph=create_graph, allow_unused=True, materialize_grads=True))
