"""One forward sweep along w + t v."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from runner.curvature import functional
from runner.curvature.taylor import (  # noqa: F401  (each module registers its rules)
    activation,
    attention,
    constant,
    convolution,
    dropout,
    linear,
    normalise,
    operators,
    pointwise,
    pool,
    recurrent,
    reduce,
    shape,
)
from runner.curvature.taylor.context import Context, LayoutMatters, sweeping, transformed
from runner.curvature.taylor.guards import OwnParameters, refuse_autocast, refuse_compiled, refuse_custom_functions
from runner.curvature.taylor.tensor import Taylor, UnsupportedOperation

Tensors = Mapping[str, Tensor]

# networks whose random draws depend on the layout of their maps
_keep_layout: "WeakSet[nn.Module]" = WeakSet()


def expand(
    model: nn.Module,
    params: Tensors,
    direction: Tensors,
    buffers: Tensors,
    inputs: Any,
    *,
    compiled: bool = False,
) -> tuple[Any, Any, Any]:
    """f0, f1, f2 with f(w + t v) = f0 + t f1 + t^2/2 f2 + …: f0 = f(w), f1 = J v, f2 = v'(d2 f)v, each like the output.

    One forward pass, without a graph. `params` are the model's parameters by name, `direction` = v those that move,
    each of its parameter's shape; the others are constants, and what comes before the first that moves costs a plain
    forward pass. `buffers` by name; the network updates copies of them. `inputs` is the model's one argument.
    The model is used in the mode it is in, and neither its parameters, buffers nor modes change. Random draws (dropout)
    start from the current state of the global generators, which the caller sets and restores.

    `compiled` runs normalisations and activations as kernels fused by torch.compile (not under vmap).
    Raises UnsupportedOperation where the network does something that has no rule; nothing is measured then.
    """
    refuse_compiled(model)
    unknown = sorted(set(direction) - set(params))
    if unknown:
        raise ValueError(f"direction should name parameters of the model; unknown: {unknown}")
    plain = {name: p.detach() for name, p in params.items()}
    inside_vmap = transformed()
    turn = not inside_vmap and model not in _keep_layout and _gains_from_channels_last(plain, inputs)
    draws = torch.get_rng_state() if turn else None
    try:
        y = _swept(model, plain, direction, buffers, inputs, Context(compiled and not inside_vmap, turn, inside_vmap))
    except UnsupportedOperation:
        raise
    except (LayoutMatters, RuntimeError):  # a draw, or what only works on maps as the network lays them out
        if draws is None:
            raise
        torch.set_rng_state(draws)
        y = _swept(model, plain, direction, buffers, inputs, Context(compiled))
        _keep_layout.add(model)
    return _coefficient(y, 0), _coefficient(y, 1), tree_map(_doubled, _coefficient(y, 2))


def _doubled(leaf: Any) -> Any:
    return 2 * leaf if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf


def _gains_from_channels_last(params: Tensors, inputs: Any) -> bool:
    """On a CPU in fp32, unless the network is in channels last as it stands."""
    tensors = [t for t in (*params.values(), *tree_leaves(inputs)) if isinstance(t, Tensor) and t.dim() == 4]
    return bool(tensors) and all(
        t.device.type == "cpu" and t.dtype == torch.float32 and t.is_contiguous() for t in tensors
    )


def _swept(
    model: nn.Module, params: dict[str, Tensor], direction: Tensors, buffers: Tensors, inputs: Any, context: Context
) -> Any:
    """The model's outputs, with Taylor tensors for all that depends on t. No graph is made, since nothing requires a
    gradient; gradients are enabled, so that the network's own torch.no_grad is seen."""
    curves = {
        name: Taylor((p, direction[name].detach(), None)) if name in direction else p for name, p in params.items()
    }
    own = {name: buffer.clone() for name, buffer in buffers.items()}
    versions = {} if context.transformed else {name: p._version for name, p in params.items()}
    try:
        with (
            torch.enable_grad(),
            sweeping(context),
            refuse_custom_functions(),
            refuse_autocast(),
            OwnParameters(model, curves),
        ):
            y = functional.call(model, {**curves, **own}, (inputs,))
    except UnsupportedOperation as error:
        if error.module is not None:
            raise
        module = _innermost(model, error.__traceback__)
        raise UnsupportedOperation(error.operation, error.reason, module) from error.__cause__
    written = sorted(name for name, version in versions.items() if params[name]._version != version)
    if written:
        raise UnsupportedOperation(
            "an in-place operation", f"the network's forward pass writes to its parameters {written}"
        )
    return y


def _innermost(model: nn.Module, traceback: TracebackType | None) -> str:
    """The path of the module whose forward pass was under way."""
    names = {id(module): name for name, module in model.named_modules()}
    found = ""
    while traceback is not None:
        running = traceback.tb_frame.f_locals.get("self")
        if isinstance(running, nn.Module) and id(running) in names:
            found = names[id(running)]
        traceback = traceback.tb_next
    return found or type(model).__name__


def _coefficient(y: Any, k: int) -> Any:
    def pick(leaf: Any) -> Any:
        if isinstance(leaf, Taylor):
            c = leaf.c[k]
            return torch.zeros_like(leaf.c[0]) if c is None else c
        if isinstance(leaf, Tensor) and leaf.is_floating_point():
            return leaf if k == 0 else torch.zeros_like(leaf)
        return leaf

    return tree_map(pick, y)
