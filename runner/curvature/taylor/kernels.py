"""Elementwise and normalising formulas over three coefficients, as they stand or fused by torch.compile.

On a CPU these passes over memory, not the convolutions, are what a sweep costs; a fused kernel reads and writes each
coefficient once. A machine that cannot compile uses the formulas as they stand and says so once.
"""

import warnings
from collections.abc import Callable
from functools import wraps
from types import FunctionType
from typing import Any

import torch

from runner.curvature.taylor.context import current

_broken = False


def kernel(formula: Callable[..., Any]) -> Callable[..., Any]:
    """`formula`, compiled where the sweep asks for it. Formulas take tensors (or None) and numbers, and own nothing."""
    compiled: Callable[..., Any] | None = None

    @wraps(formula)
    def call(*args: Any, **named: Any) -> Any:
        nonlocal compiled
        global _broken
        if _broken or not current().compiled:
            return formula(*args, **named)
        if compiled is None:
            compiled = torch.compile(_own_code(formula), dynamic=True, fullgraph=True)
        try:
            return compiled(*args, **named)
        except Exception as error:
            result = formula(*args, **named)  # fails too where the arguments are at fault
            _broken = True
            warnings.warn(
                f"Taylor rules run uncompiled, and slower: {_first_line(error)}", RuntimeWarning, stacklevel=2
            )
            return result

    return call


def _own_code(formula: Any) -> Any:
    """A copy with a code object of its own: dynamo counts recompilations per code object, which closures share."""
    copy = FunctionType(
        formula.__code__.replace(), formula.__globals__, formula.__name__, formula.__defaults__, formula.__closure__
    )
    copy.__kwdefaults__ = formula.__kwdefaults__
    return copy


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
