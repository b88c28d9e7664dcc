"""torch without torch._dynamo, the front end of its compiler, whose import takes as long as that of torch itself.

Optimizers import it when they are made and at every step, and the counter of operations when it counts, for what only
matters where they are compiled.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.optim import Optimizer
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
    hooks that nothing sets here."""
    own = type(optimizer).__module__.startswith("torch.optim.") and not optimizer.defaults.get("differentiable")
    if not own:
        optimizer.step()
        return
    with torch.no_grad():
        inspect.unwrap(type(optimizer).step)(optimizer)
