"""What holds for the sweep that is under way, and is nobody's argument."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Context:
    """`compiled`: rules run as kernels made by torch.compile. `channels_last`: convolutions turn their maps to channels
    last, which the network as it stands does not. `transformed`: inside torch.func.vmap, where a tensor cannot be
    written to by one that has more replicas than itself."""

    compiled: bool = False
    channels_last: bool = False
    transformed: bool = False


_current: ContextVar[Context] = ContextVar("taylor_sweep")
_none = Context()


def current() -> Context:
    return _current.get(_none)


def transformed() -> bool:
    """Inside vmap, or another transform of torch.func."""
    return torch._C._are_functorch_transforms_active()


@contextmanager
def sweeping(context: Context) -> Iterator[None]:
    token = _current.set(context)
    try:
        yield
    finally:
        _current.reset(token)


class LayoutMatters(Exception):
    """Draws fill memory in its order, which a sweep in channels last has changed. The sweep starts again without."""


def ensure_original_layout(x: torch.Tensor) -> None:
    if current().channels_last and x.dim() > 2:
        raise LayoutMatters
