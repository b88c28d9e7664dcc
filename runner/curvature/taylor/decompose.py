"""torch functions that are written in Python, run as they are written.

`F.multi_head_attention_forward` and its like hand themselves over to a subclass before they do anything. Their own
body, with that first question answered "no", calls functions that have rules; so it is right by construction.
"""

from collections.abc import Callable
from functools import cache
from types import FunctionType
from typing import Any

_QUESTIONS = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")
_HOMES = {"torch.nn.functional", "torch.functional"}
_METHODS = {"split", "unflatten", "norm"}


def _plain(*_: Any) -> bool:
    return False


@cache
def decomposed(func: Any) -> Callable[..., Any] | None:
    """The body of `func`, to be run on Taylor tensors; None where `func` is no such function."""
    func = getattr(func, "__wrapped__", func) if not isinstance(func, FunctionType) else func
    if not isinstance(func, FunctionType):
        return None
    method = func.__module__ == "torch._tensor" and func.__name__ in _METHODS
    if not (method or func.__module__ in _HOMES):
        return None
    names = dict.fromkeys(_QUESTIONS, _plain)
    body = FunctionType(
        func.__code__, {**func.__globals__, **names}, func.__name__, func.__defaults__, func.__closure__
    )
    body.__kwdefaults__ = func.__kwdefaults__
    return body
