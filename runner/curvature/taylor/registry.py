"""Which rule carries the Taylor coefficients through which torch function."""

from collections.abc import Callable, Iterator
from typing import Any

import torch

Rule = Callable[..., Any]

RULES: dict[Any, Rule] = {}

_HOMES: tuple[Any, ...] = (torch, torch._C._VariableFunctions, torch.Tensor, torch._C._nn, torch.special, torch.linalg)
_IN_PLACE_OPERATORS = {
    "add": "__iadd__",
    "sub": "__isub__",
    "mul": "__imul__",
    "div": "__itruediv__",
    "pow": "__ipow__",
}


def names(words: str) -> list[str]:
    return words.split()


def functions(name: str) -> Iterator[Any]:
    """Every function that torch offers under `name`, but for nn.functional: those functions run as they are written."""
    for home in _HOMES:
        found = getattr(home, name, None)
        if callable(found) and not isinstance(found, type):
            yield found


def register(name: str, rule: Rule) -> None:
    for function in functions(name):
        RULES[function] = rule


def rule(*names: str, in_place: bool = True) -> Callable[[Rule], Rule]:
    """Registers a function as the rule of the torch functions and Tensor methods of these names, and as what their
    in-place variants (`relu_`, `+=`) write. A rule is called with the arguments of the torch function."""

    def decorate(function: Rule) -> Rule:
        for name in names:
            register(name, function)
            if in_place:
                for variant in (f"{name}_", _IN_PLACE_OPERATORS.get(name)):
                    if variant is not None:
                        register(variant, _written_back(function))
        return function

    return decorate


def rule_for(*torch_functions: Any) -> Callable[[Rule], Rule]:
    """Registers a function as the rule of the given torch functions themselves."""

    def decorate(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(torch_functions, function))
        return function

    return decorate


def _written_back(function: Rule) -> Rule:
    from runner.curvature.taylor.tensor import overwrite

    def in_place(x: Any, *args: Any, **kwargs: Any) -> Any:
        return overwrite(x, function(x, *args, **kwargs))

    in_place.__wrapped__ = function  # type: ignore[attr-defined]
    return in_place
