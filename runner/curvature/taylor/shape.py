"""Functions that are linear in their tensors as a whole: moving, copying, summing, averaging elements.

They act on every coefficient alike.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from runner.curvature.taylor.context import LayoutMatters, current
from runner.curvature.taylor.registry import RULES, functions, names, register, rule
from runner.curvature.taylor.tensor import Taylor, UnsupportedOperation, as_view, overwrite, series, tensor, value

VIEWS = names("""
adjoint broadcast_to bfloat16 chunk contiguous cpu cuda diagonal double dsplit expand expand_as flatten float half
hsplit moveaxis movedim narrow permute positive __pos__ ravel reshape reshape_as select split split_with_sizes
squeeze swapaxes swapdims t tensor_split to transpose type_as unbind unflatten unfold unsafe_chunk unsafe_split
unsqueeze view view_as vsplit __getitem__ alias view_copy expand_copy atleast_1d atleast_2d atleast_3d
""")

LINEAR = names("""
avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool2d
_adaptive_avg_pool3d channel_shuffle clone col2im cumsum diag diag_embed flip fliplr flipud gather im2col
index_select masked_select mean native_channel_shuffle neg negative __neg__ pixel_shuffle pixel_unshuffle
reflection_pad1d reflection_pad2d reflection_pad3d repeat repeat_interleave replication_pad1d replication_pad2d
replication_pad3d roll rot90 sum sum_to_size take take_along_dim tile trace tril triu upsample_bicubic2d
upsample_bilinear2d upsample_linear1d upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_trilinear3d
_upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d _upsample_bilinear2d_aa
_upsample_bicubic2d_aa fold affine_grid_generator unfold_copy _pad_circular
""")

JOINT = names("""
cat concat concatenate column_stack dstack hstack index_add index_copy row_stack scatter_add select_scatter
slice_scatter diagonal_scatter stack vstack broadcast_tensors
""")


def _order(argument: Any, k: int, listed: bool = False) -> Any:
    """The k-th coefficient of an argument that takes part linearly; indices, masks and settings stay as they are.
    Tensors in a list (of `cat`, `stack`) take part whatever their type."""
    if isinstance(argument, Taylor):
        c = argument.c[k]
        return torch.zeros_like(argument.c[0]) if c is None else c
    if isinstance(argument, Tensor) and (listed or argument.is_floating_point()):
        return argument if k == 0 else torch.zeros_like(argument)
    if isinstance(argument, list | tuple):
        return (
            type(argument)(_order(entry, k, True) for entry in argument)
            if type(argument) in (list, tuple)
            else argument
        )
    return argument


def _missing(argument: Any, k: int) -> bool:
    """Whether no tensor of this argument has a k-th coefficient."""
    if isinstance(argument, Taylor):
        return argument.c[k] is None
    return all(_missing(entry, k) for entry in argument) if isinstance(argument, list | tuple) else True


def _gathered(results: list[Any]) -> Any:
    """Coefficients of each output from outputs for each coefficient."""
    y0, y1, y2 = results
    if isinstance(y0, Tensor):
        return tensor(y0, y1, y2) if y0.is_floating_point() or y0.is_complex() else y0
    empty = (None,) * len(y0)
    return type(y0)(_gathered(list(each)) for each in zip(y0, y1 or empty, y2 or empty, strict=True))


def _values(argument: Any) -> Any:
    if isinstance(argument, list | tuple) and type(argument) in (list, tuple):
        return type(argument)(_values(entry) for entry in argument)
    return value(argument)


def elementary(function: Callable[..., Any], x: Any, *args: Any, **kwargs: Any) -> Any:
    """function(x_k, …) for every coefficient of x; of the other arguments only the values matter."""
    args, kwargs = _values(args), {key: _values(entry) for key, entry in kwargs.items()}
    if not isinstance(x, Taylor):
        return function(x, *args, **kwargs)
    return _gathered([None if c is None else function(c, *args, **kwargs) for c in x.c])


def view(function: Callable[..., Any], x: Any, *args: Any, **kwargs: Any) -> Any:
    """Maps in channels last may have to be copied where the network's own need not, and count as views all the same.
    Where the network asks for that layout it is the reverse."""
    if current().channels_last and any(one is torch.channels_last for one in (*args, *kwargs.values())):
        raise LayoutMatters
    y, copied = elementary(function, x, *args, **kwargs), current().channels_last
    if isinstance(y, Taylor):
        return x if all(a is b for a, b in zip(x.c, y.c, strict=True)) else as_view(y, x, copied)
    if isinstance(y, list | tuple):
        return type(y)(as_view(each, x, copied) for each in y)
    return y


def joint(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """function of the k-th coefficients of all tensors together."""
    every = (*args, *kwargs.values())
    return _gathered(
        [
            None
            if k and all(_missing(argument, k) for argument in every)
            else function(
                *(_order(entry, k) for entry in args), **{key: _order(entry, k) for key, entry in kwargs.items()}
            )
            for k in range(3)
        ]
    )


def _in_place(function: Callable[..., Any], run: Callable[..., Any]) -> Callable[..., Any]:
    def write(x: Any, *args: Any, **kwargs: Any) -> Any:
        return overwrite(x, run(function, x, *args, **kwargs))

    return write


def _install(names: list[str], run: Callable[..., Any]) -> None:
    for name in names:
        for function in functions(name):
            RULES[function] = partial(run, function)
            if run is not view:
                register(f"{name}_", _in_place(function, run))


_install(VIEWS, view)
_install(LINEAR, elementary)
_install(JOINT, joint)

for _name in ("T", "mT", "H", "mH", "real"):
    _getter = getattr(Tensor, _name).__get__
    RULES[_getter] = partial(view, _getter)

_view, _type = Tensor.view, Tensor.type


@rule("view", in_place=False)
def reinterpreted(x: Any, *shape: Any, **kwargs: Any) -> Any:
    if any(isinstance(entry, torch.dtype) for entry in (*shape, *kwargs.values())):
        raise UnsupportedOperation("torch.Tensor.view", "it reads the bits of a number as another type")
    return view(_view if not isinstance(x, Taylor) else _viewed(x.c[0]), x, *shape, **kwargs)


@rule("view_as", in_place=False)
def view_as(x: Any, other: Any) -> Any:
    return reinterpreted(x, value(other).shape)


def _viewed(x0: Tensor) -> Callable[..., Tensor]:
    """Tensor.view of the value, unless channels last has changed its layout; what else is carried may have been
    expanded, or lie in another order."""

    def seen(c: Tensor, *shape: Any, **kwargs: Any) -> Tensor:
        if c is x0 and not current().channels_last:
            return c.view(*shape, **kwargs)
        try:
            return c.view(*shape, **kwargs)
        except RuntimeError:
            return c.contiguous().view(*shape, **kwargs)

    return seen


@rule("type", in_place=False)
def type_(x: Taylor, dtype: Any = None, **kwargs: Any) -> Any:
    return x.c[0].type() if dtype is None else view(_type, x, dtype, **kwargs)


def _refused(name: str) -> Callable[..., Any]:
    def write(x: Taylor, *args: Any, **kwargs: Any) -> Taylor:
        raise UnsupportedOperation(f"torch.Tensor.{name}", "it changes the shape of a tensor in place")

    return write


for _name in ("squeeze_", "unsqueeze_", "transpose_", "t_", "swapaxes_", "swapdims_"):
    register(_name, _refused(_name))


@rule("pad", "constant_pad_nd", in_place=False)
def pad(x: Taylor, pad: Any, mode: Any = "constant", value: Any = None) -> Tensor:
    """Constants around x0 are no part of the other coefficients."""
    if isinstance(mode, str) and mode != "constant":
        return elementary(torch.nn.functional.pad, x, pad, mode)
    number = value if isinstance(mode, str) else mode
    padded = torch.nn.functional.pad
    rest = (None if c is None else padded(c, pad) for c in x.c[1:])
    return tensor(padded(x.c[0], pad, "constant", number or 0.0), *rest)


@rule("scatter")
def scatter(x: Any, dim: int, index: Tensor, src: Any = None, *, value: Any = None, reduce: Any = None) -> Tensor:
    number = value if src is None else src
    if reduce is not None or not isinstance(dim, int):
        raise UnsupportedOperation("torch.scatter", "it multiplies or adds while it scatters")
    if not isinstance(number, Tensor):
        kept = (None if c is None else c.scatter(dim, index, 0) for c in series(x)[1:])
        return tensor(series(x)[0].scatter(dim, index, number), *kept)
    return joint(torch.scatter, x, dim, index, number)


@rule("index_fill")
def index_fill(x: Taylor, dim: int, index: Tensor, value: Any) -> Tensor:
    if isinstance(value, Taylor):
        raise UnsupportedOperation("torch.index_fill", "its value depends on the weights")
    return tensor(
        x.c[0].index_fill(dim, index, value), *(None if c is None else c.index_fill(dim, index, 0) for c in x.c[1:])
    )


@rule("grid_sampler", in_place=False)
def grid_sampler(input: Any, grid: Any, *settings: Any) -> Tensor:
    if isinstance(grid, Taylor):
        raise UnsupportedOperation("torch.nn.functional.grid_sample", "its grid depends on the weights")
    return elementary(torch.grid_sampler, input, grid, *settings)


@rule("index_put")
def index_put(x: Any, indices: Any, values: Any, accumulate: bool = False) -> Tensor:
    return joint(lambda p, q: torch.index_put(p, indices, q, accumulate), x, values)


@rule("masked_scatter")
def masked_scatter(x: Any, mask: Tensor, source: Any) -> Tensor:
    return joint(torch.masked_scatter, x, mask, source)


@rule("__setitem__", in_place=False)
def setitem(x: Any, where: Any, new: Any) -> None:
    """x[where] = new, on copies of the coefficients."""
    if not isinstance(x, Taylor):
        overwrite(x, new)
    parts = series(new)
    written: list[Tensor | None] = []
    for k in range(3):
        if k and x.c[k] is None and parts[k] is None:
            written.append(None)
            continue
        c = x.c[k].clone() if x.c[k] is not None else torch.zeros_like(x.c[0])  # type: ignore[union-attr]
        part = parts[k]
        c[_values(where)] = 0 if part is None else part
        written.append(c)
    overwrite(x, tensor(*written))  # type: ignore[arg-type]
