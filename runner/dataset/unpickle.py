"""Reading pickles without running what they say.

A pickle is a program that may call any function it names. Here it may name only the few functions that
pickled NumPy arrays and numbers need, and what it then gets are the stand-ins below: no code of NumPy's sees
the file's data but `frombuffer`, with a numeric type.
"""

import io
import pickle
import pickletools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from runner.errors import BadInput


def load(path: Path) -> dict[str, Any]:
    """The dict that the pickle `path` holds, with text keys (Python 2 wrote bytes). Its values may be arrays,
    and lists, dicts and tuples of strings and numbers.

    Raises BadInput for anything else.
    """
    try:
        data = path.read_bytes()
        _check_memo(data)
        content = _Unpickler(io.BytesIO(data), encoding="bytes").load()
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__} instead of a dict")
        return {_text(key): value.array if isinstance(value, _Array) else value for key, value in content.items()}
    except Exception as error:  # a damaged pickle can raise anything
        raise BadInput(
            f"{path} is refused: {error}. It should be a pickle of arrays, lists, strings and numbers in the"
            " published layout; replace it with the published file."
        ) from error


def _check_memo(data: bytes) -> None:
    """A pickle numbers what it will refer to again, and Python makes room up to the largest number at once: in seven
    bytes one could ask for all memory."""
    for operation, argument, _ in pickletools.genops(data):
        if operation.name in ("PUT", "LONG_BINPUT") and not 0 <= int(argument or 0) <= len(data):
            raise pickle.UnpicklingError(f"it names its object {argument}, and has not so many")


def _text(key: object) -> str:
    return key.decode() if isinstance(key, bytes) else str(key)


class _StandIn:
    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Without this, a pickle could set attributes of the stand-ins themselves."""
        raise pickle.UnpicklingError("it sets the state of what has none")


class _Dtype(_StandIn):
    """Stands for numpy.dtype: a numeric type and its byte order."""

    def __init__(self, code: str | bytes, align: object = False, copy: object = True) -> None:
        name = _text(code)
        if not re.fullmatch(r"[<>=|]?(b1|[iu][1248]|f[248])", name):
            raise pickle.UnpicklingError(f"it holds an array of type {name!r}, not of numbers")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = _text(state[1])
        if order not in ("<", ">", "=", "|"):
            raise pickle.UnpicklingError(f"it holds the byte order {order!r}")
        self.dtype = self.dtype.newbyteorder(order)  # type: ignore[arg-type]


class _Array(_StandIn):
    """Stands for numpy.ndarray and for the function that makes an empty one, to be filled from its state."""

    array: np.ndarray[Any, Any]

    def __init__(self, *ignored: object) -> None: ...

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        self.array = _from_bytes(data, dtype, shape, "F" if fortran else "C")


class _FromBuffer(_Array):
    """Stands for numpy's _frombuffer, which pickles of protocol 5 call."""

    def __init__(self, data: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str) -> None:
        self.array = _from_bytes(data, dtype, shape, order)


class _Scalar(_StandIn):
    """Stands for numpy's scalar: a number."""

    def __new__(cls, dtype: _Dtype, data: bytes) -> Any:
        return _from_bytes(data, dtype, (), "C").item()


class _Encode(_StandIn):
    """Stands for _codecs.encode, by which Python 3 writes bytes for Python 2."""

    def __new__(cls, text: str, encoding: str) -> Any:
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"it asks for the encoding {encoding!r}")
        return text.encode("latin1")


def _from_bytes(data: object, dtype: object, shape: object, order: object) -> np.ndarray[Any, Any]:
    if not (isinstance(data, bytes | bytearray) and isinstance(dtype, _Dtype) and isinstance(shape, tuple)):
        raise pickle.UnpicklingError("it holds an array that is not one of numbers")
    return np.frombuffer(data, dtype.dtype).reshape(shape, order="F" if order == "F" else "C")


_STAND_INS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Array,
    ("_codecs", "encode"): _Encode,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Array for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _Scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _FromBuffer for core in ("core", "_core")},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return _STAND_INS[module, name]
