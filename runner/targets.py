"""From a config node with `_target_` to the object it describes: its keys and types checked against the constructor."""

import difflib
import inspect
import logging
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Union

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from runner.errors import BadInput


def signature(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The named parameters of a function or constructor, annotations resolved where they can be."""
    parameters = dict(inspect.signature(target).parameters)
    function = target.__init__ if inspect.isclass(target) else target  # type: ignore[misc]
    try:
        hints = typing.get_type_hints(function)
    except Exception:
        hints = {}
    return {name: p.replace(annotation=hints.get(name, Any)) for name, p in parameters.items()}


def fits(value: Any, annotation: Any) -> bool:
    """Whether a value from a config is one that `annotation` admits; annotations it does not know admit everything."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in arguments)
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in arguments)
    if annotation is None or annotation is type(None):
        return value is None
    if annotation in (int, float):
        kinds: tuple[type, ...] = (int,) if annotation is int else (int, float)
        return isinstance(value, kinds) and not isinstance(value, bool)
    if annotation in (bool, str):
        return isinstance(value, annotation)
    if inspect.isclass(origin) and issubclass(origin, Sequence):
        return isinstance(value, list) and _entries_fit(value, origin, arguments)
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return isinstance(value, dict)
    return not _is_torchs(annotation)  # no yaml holds a tensor or a module


def _entries_fit(entries: list[Any], origin: Any, kinds: tuple[Any, ...]) -> bool:
    """tuple[A, B] wants one of each in this order, all other sequences as many of one kind as there are."""
    if origin is tuple and Ellipsis not in kinds:
        return len(entries) == len(kinds) and all(map(fits, entries, kinds))
    return all(fits(entry, kinds[0] if kinds else Any) for entry in entries)


NAMES = {int: "an integer", float: "a number", bool: "true or false", str: "text", type(None): "null", None: "null"}


def describe(annotation: Any) -> str:
    """What `annotation` admits, in the words of a yaml."""
    if annotation in NAMES:
        return NAMES[annotation]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (Union, types.UnionType):
        kinds = sorted((one for one in arguments if not _is_torchs(one)), key=lambda one: one is not type(None))
        return " or ".join(map(describe, kinds))  # null first
    if origin is Literal:
        return " or ".join(map(str, arguments))
    if inspect.isclass(origin) and issubclass(origin, Sequence):
        count = f" of {len(arguments)}" if origin is tuple and Ellipsis not in arguments else ""
        return f"a list{count}, each {describe(arguments[0])}" if arguments else "a list"
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return "a mapping"
    return getattr(annotation, "__name__", str(annotation))


def _is_torchs(annotation: Any) -> bool:
    return getattr(annotation, "__module__", "").startswith("torch")


def locate(node: DictConfig, path: str) -> Callable[..., Any]:
    """The function or class that `node._target_` names."""
    target = node.get("_target_") if not OmegaConf.is_missing(node, "_target_") else None
    if not target:
        raise BadInput(f"{path}._target_ should name a class or function (package.module.Name), found nothing")
    try:
        with _quiet("hydra.utils"):  # it logs the same over three lines
            found = get_object(str(target))
    except Exception as error:
        raise BadInput(f"{path}._target_={target} cannot be imported: {_why(str(target), error)}") from error
    if not callable(found):
        raise BadInput(f"{path}._target_ should name a class or function, found {target}, a {type(found).__name__}")
    return typing.cast(Callable[..., Any], found)


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Without what the logger of this name says."""
    log = logging.getLogger(name)
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


def _why(target: str, error: Exception) -> str:
    """What the module does have: classes of like names, or else all of its own. Where there is no such module, the
    first error's words."""
    module, _, name = target.rpartition(".")
    if found := sys.modules.get(module):
        classes = [key for key, value in vars(found).items() if inspect.isclass(value)]
        alike = difflib.get_close_matches(name, classes, 3) or [
            key for key in classes if vars(found)[key].__module__ == module
        ]
        return f"{module} has no {name}" + (f"; it has {', '.join(alike)}" if alike else "")
    while error.__cause__ is not None:
        error = error.__cause__  # type: ignore[assignment]
    return str(error).splitlines()[0]


def check(node: DictConfig, path: str, given: Sequence[str] = ()) -> None:
    """Refuse keys that the target does not take, values of another type, and required keys that are missing.

    `given`: arguments that the builder will supply.
    """
    target = locate(node, path)
    parameters = signature(target)
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    named = {n: p for n, p in parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    name = getattr(target, "__qualname__", str(target))
    if missing := [str(key) for key in node if OmegaConf.is_missing(node, key)]:
        raise BadInput(f"{path}.{missing[0]} should be given: {path}.{missing[0]}=…")
    values = OmegaConf.to_container(node, resolve=True)
    assert isinstance(values, dict)
    for key, value in ((str(key), value) for key, value in values.items()):
        if (key.startswith("_") and key.endswith("_")) or (value is None and key in given):
            continue
        if key not in named:
            if takes_any:
                continue
            raise BadInput(f"{path}.{key} is no key of {name}; it takes {', '.join(named)}")
        if not fits(value, named[key].annotation) and not (isinstance(value, dict) and "_target_" in value):
            wanted = describe(named[key].annotation)
            raise BadInput(f"{path}.{key} should be {wanted}, found {value!r} ({type(value).__name__})")
    for key, parameter in named.items():
        if parameter.default is parameter.empty and key not in values and key not in given:
            raise BadInput(f"{path}.{key} is required by {name} and missing; give it with {path}.{key}=…")


def make(node: DictConfig, path: str, **given: Any) -> Any:
    """The object that `node` describes. `given` fills those of its arguments that the constructor takes and the config
    leaves out or null."""
    return maker(node, path, **given)()


def maker(node: DictConfig, path: str, **given: Any) -> Callable[[], Any]:
    """Makes the object that `node` describes at each call, without reading the config again, which takes long."""
    check(node, path, tuple(given))
    parameters = signature(locate(node, path))
    extra = {key: value for key, value in given.items() if key in parameters and node.get(key) is None}
    with _refused(path):
        partial = instantiate(node, _convert_="all", _partial_=True, **extra)

    def call() -> Any:
        with _refused(path):
            return partial()

    return call


@contextmanager
def _refused(path: str) -> Iterator[None]:
    """What a constructor does not accept is bad input, and says where; Hydra's own wrapping is taken off."""
    try:
        yield
    except Exception as error:
        cause = (error.__cause__ or error) if isinstance(error, InstantiationException) else error
        if isinstance(cause, BadInput | ValueError | TypeError | MemoryError):
            raise BadInput(str(cause) if str(cause).startswith(path) else f"{path}: {cause}") from error
        raise cause from error
