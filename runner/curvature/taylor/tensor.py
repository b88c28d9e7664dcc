"""A tensor that stands for a curve x(t) = x0 + t x1 + t^2 x2 + O(t^3).

The coefficients are divided by k!, so that products convolve them: (xy)_2 = x0 y2 + x1 y1 + x2 y0.
A coefficient that is None is zero by structure and costs nothing. Only tensors that depend on t are of this class; all
others stay plain tensors, and torch computes with them at its own speed.
"""

import inspect
import weakref
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from runner.curvature.taylor.context import LayoutMatters, current
from runner.curvature.taylor.decompose import decomposed
from runner.curvature.taylor.registry import RULES

Series = tuple[Tensor, Tensor | None, Tensor | None]


class UnsupportedOperation(RuntimeError):
    """The network does something whose second derivative the Taylor sweep does not know. Nothing was measured."""

    def __init__(self, operation: str, reason: str = "it has no Taylor rule", module: str | None = None) -> None:
        self.operation, self.reason, self.module = operation, reason, module
        place = "" if module is None else f" in module {module!r}"
        super().__init__(
            f"{operation}{place}: {reason}; the exact split by Taylor expansion cannot pass through it. "
            "Use the method double_backward (probe.split.method=double_backward), or hvp (probe=hvp)."
        )


class Taylor(Tensor):
    """Coefficients `c = (x0, x1, x2)`; x1 and x2 may be None = 0. Shape, dtype and device are those of x0.

    It is a wrapper without data: what reaches torch's kernels without passing a rule fails, and never computes with x0.
    """

    c: Series
    kin: list["weakref.ref[Taylor]"]
    leaked: bool

    @staticmethod
    def __new__(cls, c: Series) -> "Taylor":
        x0 = c[0]
        if x0.is_complex():
            raise UnsupportedOperation("a complex tensor", "it depends on the weights, and rules are for real numbers")
        return Tensor._make_wrapper_subclass(cls, x0.shape, dtype=x0.dtype, device=x0.device)  # type: ignore[attr-defined]

    def __init__(self, c: Series) -> None:
        self.c = c
        self.kin = [weakref.ref(self)]  # this tensor and the views of the same memory
        self.leaked = False  # a plain tensor shares its memory

    def __repr__(self, *, tensor_contents: object = None) -> str:  # type: ignore[override]
        orders = "".join("." if c is None else str(k) for k, c in enumerate(self.c))
        return f"Taylor({tuple(self.c[0].shape)}, orders={orders})"

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not args and "input" in kwargs:
            args, kwargs = (kwargs["input"],), {key: entry for key, entry in kwargs.items() if key != "input"}
        if "axis" in kwargs:  # NumPy's name, which torch takes too
            kwargs = {"dim" if key == "axis" else key: entry for key, entry in kwargs.items()}
        rule = RULES.get(func) or decomposed(func)
        if rule is None:
            raise UnsupportedOperation(name_of(func))
        try:
            found = rule(*args, **kwargs)
            _link(found, args)
            return found if torch.is_grad_enabled() else tree_map(partial(_constant, args), found)
        except TypeError as error:
            try:
                inspect.signature(rule).bind(*args, **kwargs)
            except TypeError as misfit:
                raise UnsupportedOperation(
                    name_of(func), f"its Taylor rule does not know these arguments ({misfit})"
                ) from None
            raise error
        except RecursionError:  # a function of torch's in Python that hands itself over again and again
            raise UnsupportedOperation(name_of(func)) from None

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        raise UnsupportedOperation(str(func), "it was called below torch's Python interface (a script or a fused path)")


def _constant(args: Any, found: Any) -> Any:
    """What autograd takes a result for that was computed under the network's own torch.no_grad: a constant, unless an
    argument was returned as it was."""
    if not isinstance(found, Taylor) or any(isinstance(x, Taylor) and x.c[0] is found.c[0] for x in args):
        return found
    return RULES[Tensor.detach](found)


def name_of(func: Any) -> str:
    """torch.Tensor.add, torch.nn.functional.ctc_loss, …"""
    owner: Any = getattr(func, "__self__", None)
    if getattr(func, "__name__", "") in ("__get__", "__set__") and hasattr(owner, "__name__"):
        return f"torch.Tensor.{owner.__name__}"
    try:
        return torch.overrides.resolve_name(func) or str(func)
    except Exception:
        return str(getattr(func, "__name__", func))


def series(x: Any) -> Series:
    """The coefficients of a Taylor tensor; a plain tensor or number is a constant."""
    return x.c if isinstance(x, Taylor) else (x, None, None)


def tensor(x0: Tensor, x1: Tensor | None, x2: Tensor | None) -> Tensor:
    """The tensor with these coefficients, a plain one if it does not depend on t."""
    return x0 if x1 is None and x2 is None else Taylor((x0, x1, x2))


def value(x: Any) -> Any:
    """x(0)."""
    return x.c[0] if isinstance(x, Taylor) else x


def _link(found: Any, args: Any) -> None:
    """Results that share memory with an argument are its views, whatever the operation."""
    results = found if isinstance(found, list | tuple) else (found,)
    for x in args:
        for one in x if isinstance(x, list | tuple) else (x,):
            if isinstance(one, Taylor):
                for y in results:
                    as_view(y, one)


def as_view(y: Any, x: Any, copied: bool = False) -> Any:
    """y, if it shares memory with x known to do so, so that a later write to either is not lost on the other. `copied`:
    it does in the network, though not here."""
    if isinstance(y, Taylor) and isinstance(x, Taylor) and y.kin is not x.kin and (copied or _share(x.c[0], y.c[0])):
        kin, leaked = x.kin + y.kin, x.leaked or y.leaked
        for one in (ref() for ref in kin):
            if one is not None:
                one.kin, one.leaked = kin, leaked
    return y


def _share(a: Tensor, b: Tensor) -> bool:
    return _memory(a) == _memory(b)


def _memory(x: Tensor) -> int:
    while torch._C._functorch.is_functorch_wrapped_tensor(x):
        x = torch._C._functorch.get_unwrapped(x)
    return x.untyped_storage().data_ptr()


def overwrite(x: Any, new: Any) -> Any:
    """What an in-place operation does to x: from now on it has the coefficients of `new`.

    The memory of the old coefficients is not touched (parameters, inputs and other tensors may share it), so the write
    is refused where somebody else would have to see it.
    """
    if not isinstance(x, Taylor):
        raise UnsupportedOperation(
            "an in-place operation", "it writes a value that depends on the weights into a plain tensor"
        )
    if not torch.is_grad_enabled():
        raise UnsupportedOperation("an in-place operation", "under torch.no_grad, it changes a value but no derivative")
    if x.leaked or any(other is not None and other is not x for other in (ref() for ref in x.kin)):
        if current().channels_last:  # which may have made a copy of what is a view in the network, or the reverse
            raise LayoutMatters
        raise UnsupportedOperation("an in-place operation", "it writes to a tensor while a view of it is still in use")
    c = series(new)
    if c[0].shape != x.c[0].shape:
        raise RuntimeError(f"an in-place result should keep the shape {tuple(x.c[0].shape)}, found {tuple(c[0].shape)}")
    dtype = x.c[0].dtype
    x.c = tuple(None if k is None else k.to(dtype) for k in c)  # type: ignore[assignment]
    x.kin = [weakref.ref(x)]
    return x
