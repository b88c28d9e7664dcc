"""What a sweep must not walk past in silence."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from runner.curvature.taylor.tensor import UnsupportedOperation


class OwnParameters(TorchFunctionMode):
    """Puts the moving parameters in the place of the module's own wherever a function is given one of these: a module
    may keep them where `functional_call` does not look, as nn.LSTM does in its flat list."""

    def __init__(self, model: nn.Module, curves: Mapping[str, Tensor]) -> None:
        super().__init__()
        own = dict(model.named_parameters())
        self.curves = {id(own[name]): curve for name, curve in curves.items() if name in own}

    def _replaced(self, argument: Any) -> Any:
        if isinstance(argument, nn.Parameter):
            return self.curves.get(id(argument), argument)
        if type(argument) in (list, tuple):
            return type(argument)(self._replaced(entry) for entry in argument)
        return argument

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        replaced = tuple(self._replaced(argument) for argument in args)
        return func(*replaced, **{key: self._replaced(entry) for key, entry in (kwargs or {}).items()})


@contextmanager
def refuse_custom_functions() -> Iterator[None]:
    """A torch.autograd.Function states its own derivative, which its forward pass does not show.

    Whoever holds on to the `apply` of such a function calls it unseen; but each call makes a context object.
    """
    contexts = torch.autograd.function.BackwardCFunction
    original = contexts.__init__

    def refuse(self: Any, *_: Any, **__: Any) -> None:
        name = getattr(type(self), "_forward_cls", type(self)).__qualname__
        raise UnsupportedOperation(name, "a custom autograd function has no Taylor rule")

    contexts.__init__ = refuse  # type: ignore[method-assign]
    try:
        yield
    finally:
        contexts.__init__ = original  # type: ignore[method-assign]


@contextmanager
def refuse_autocast() -> Iterator[None]:
    """What autocast rounds is rounded in the value only."""
    original = torch.autocast.__enter__

    def refuse(self: Any) -> Any:
        if self._enabled:
            raise UnsupportedOperation("torch.autocast", "it computes in another precision than the sweep")
        return original(self)

    torch.autocast.__enter__ = refuse  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.autocast.__enter__ = original  # type: ignore[method-assign]


def compiled_parts(model: nn.Module) -> list[str]:
    """The names of the modules that run through torch.compile."""
    return [
        name or "model"
        for name, module in model.named_modules()
        if hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None
    ]


def refuse_compiled(model: nn.Module) -> None:
    if found := compiled_parts(model):
        raise UnsupportedOperation(
            "torch.compile", "expand the module that was compiled, not the compiled one", found[0]
        )
