"""torch's optimizers without what they do beside the update: they cast the state that they load, and, when they are
made and at every step, import torch._dynamo, the front end of the compiler.

That import takes as long as that of torch itself, and only matters where they are compiled; the counter of operations
makes it too, when it counts.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim import optimizer as torch_optimizer
from torch.utils import flop_counter

COUNTER: Any = getattr(flop_counter, "_FlopCounterMode", flop_counter.FlopCounterMode)
NOT_COMPILED = (
    *(Optimizer.add_param_group, Optimizer.load_state_dict, Optimizer.state_dict, Optimizer.zero_grad),
    COUNTER.__torch_dispatch__,
)
MARK = "__dynamo_disable"  # where torch keeps a method that it has marked as not to be compiled


@contextmanager
def unmarked() -> Iterator[None]:
    """Inside, methods that torch marks as not to be compiled at their first call count as marked."""
    fresh = [method for method in map(inspect.unwrap, NOT_COMPILED) if not hasattr(method, MARK)]
    for method in fresh:
        setattr(method, MARK, method)
    try:
        yield
    finally:
        for method in fresh:
            delattr(method, MARK)


def update(optimizer: Optimizer) -> None:
    """`optimizer.step()`; of torch's own the update itself, without what is wrapped around it for the compiler and for
    hooks where there are none."""
    if not type(optimizer).__module__.startswith("torch.optim.") or _hooked(optimizer):
        optimizer.step()
        return
    with torch.no_grad():
        inspect.unwrap(type(optimizer).step)(optimizer)


def restore(optimizer: Optimizer, saved: dict[str, Any]) -> None:
    """`load_state_dict`, every entry in the dtype in which it was saved: torch casts to the parameter's, and NAdam, for
    one, keeps a number in fp32 beside parameters in fp64."""
    optimizer.load_state_dict(saved)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for number, entries in saved["state"].items():
        own = optimizer.state[parameters[number]]
        other = {k: v for k, v in entries.items() if torch.is_tensor(v) and v.dtype != own[k].dtype}
        own.update({k: v.to(own[k].device, copy=True) for k, v in other.items()})


def _hooked(optimizer: Optimizer) -> bool:
    """Whether anything but the update belongs to a step: torch's hooks, or a `step` of the object's own."""
    own = optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks
    everyones = torch_optimizer._global_optimizer_pre_hooks, torch_optimizer._global_optimizer_post_hooks
    return any((*own, *everyones)) or "step" in vars(optimizer)
