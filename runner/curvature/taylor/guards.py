"""What a sweep must not walk past in silence."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from runner.curvature.taylor.tensor import Taylor, UnsupportedOperation


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
    """A torch.autograd.Function states its own derivative, which its forward pass does not show."""
    original = torch.autograd.Function.__dict__["apply"]

    def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        if any(isinstance(argument, Taylor) for argument in (*args, *kwargs.values())):
            raise UnsupportedOperation(
                f"{cls.__module__}.{cls.__qualname__}", "a custom autograd function has no Taylor rule"
            )
        return original.__get__(None, cls)(*args, **kwargs)

    torch.autograd.Function.apply = classmethod(apply)  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        torch.autograd.Function.apply = original  # type: ignore[method-assign]


def refuse_compiled(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None:
            raise UnsupportedOperation(
                "torch.compile", "expand the module that was compiled, not the compiled one", name or "model"
            )
