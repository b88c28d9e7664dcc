"""Reductions that are not linear: variance, norms, softmax, extremes and order statistics."""

from typing import Any

import torch
from torch import Tensor

from runner.curvature.taylor.arithmetic import add, multiply
from runner.curvature.taylor.kernels import kernel
from runner.curvature.taylor.registry import rule
from runner.curvature.taylor.tensor import Series, Taylor, UnsupportedOperation, series, tensor, value


def _variance(x: Taylor, args: tuple[Any, ...], correction: Any, keepdim: bool, unbiased: bool | None, dim: Any) -> Any:
    rest = list(args)
    if rest and isinstance(rest[0], bool):
        unbiased = rest.pop(0)
    if rest:
        dim = rest.pop(0)
    if rest:
        unbiased = rest.pop(0)
    if rest:
        keepdim = rest.pop(0)
    if unbiased is not None:
        correction = int(unbiased)
    axes = list(range(x.dim())) if dim is None else [dim] if isinstance(dim, int) else list(dim) or list(range(x.dim()))
    count = 1
    for axis in axes:
        count *= x.shape[axis]
    mean = x.mean(axes, keepdim=True)
    var = (x - mean).square().sum(axes, keepdim=keepdim) / max(0, count - (1 if correction is None else correction))
    return var, mean if keepdim else mean.squeeze(axes)


@rule("var", in_place=False)
def var(
    x: Taylor, *args: Any, correction: Any = 1, keepdim: bool = False, unbiased: Any = None, dim: Any = None
) -> Tensor:
    return _variance(x, args, correction, keepdim, unbiased, dim)[0]


@rule("std", in_place=False)
def std(
    x: Taylor, *args: Any, correction: Any = 1, keepdim: bool = False, unbiased: Any = None, dim: Any = None
) -> Tensor:
    return _variance(x, args, correction, keepdim, unbiased, dim)[0].sqrt()


@rule("var_mean", in_place=False)
def var_mean(
    x: Taylor, *args: Any, correction: Any = 1, keepdim: bool = False, unbiased: Any = None, dim: Any = None
) -> Any:
    return _variance(x, args, correction, keepdim, unbiased, dim)


@rule("std_mean", in_place=False)
def std_mean(
    x: Taylor, *args: Any, correction: Any = 1, keepdim: bool = False, unbiased: Any = None, dim: Any = None
) -> Any:
    variance, mean = _variance(x, args, correction, keepdim, unbiased, dim)
    return variance.sqrt(), mean


def _log_terms(p0: Tensor, x1: Tensor | None, x2: Tensor | None, dim: Any) -> tuple[Any, Any, Any, Any]:
    """Coefficients 1 and 2 of log p (for p = softmax x) and of log sum exp x.

    log p_1 = x1 - <p0, x1> =: u, lse_2 = <p0, x2> + 1/2 <p0, u^2>."""
    m1: Any = None if x1 is None else (p0 * x1).sum(dim, keepdim=True)
    u = None if x1 is None else x1 - m1
    m2 = None if x2 is None else (p0 * x2).sum(dim, keepdim=True)
    if u is not None:
        m2 = add(m2, 0.5 * (p0 * u * u).sum(dim, keepdim=True))
    return u, None if m2 is None else (-m2.expand_as(p0) if x2 is None else x2 - m2), m1, m2


@kernel
def softmax_series(x0: Tensor, x1: Tensor | None, x2: Tensor | None, dim: int) -> Series:
    p0 = torch.softmax(x0, dim)
    u1, u2, _, _ = _log_terms(p0, x1, x2, dim)
    return p0, multiply(p0, u1), None if u2 is None else p0 * (u2 if u1 is None else u2 + 0.5 * u1 * u1)


@kernel
def log_softmax_series(x0: Tensor, x1: Tensor | None, x2: Tensor | None, dim: int) -> Series:
    y0 = torch.log_softmax(x0, dim)
    u1, u2, _, _ = _log_terms(y0.exp(), x1, x2, dim)
    return y0, u1, u2


@rule("softmax", "_softmax", in_place=False)
def softmax(x: Any, dim: int, dtype: Any = None) -> Tensor:
    x = x if not isinstance(dtype, torch.dtype) else x.to(dtype)
    return tensor(*softmax_series(*series(x), dim))


@rule("log_softmax", in_place=False)
def log_softmax(x: Any, dim: int, dtype: Any = None) -> Tensor:
    x = x if not isinstance(dtype, torch.dtype) else x.to(dtype)
    return tensor(*log_softmax_series(*series(x), dim))


@rule("logsumexp", in_place=False)
def logsumexp(x: Taylor, dim: Any, keepdim: bool = False) -> Tensor:
    x0, x1, x2 = series(x)
    y0 = torch.logsumexp(x0, dim, keepdim=True)
    _, _, m1, m2 = _log_terms((x0 - y0).exp(), x1, x2, dim)
    y = tensor(y0, m1, m2)
    return y if keepdim else y.squeeze(dim)


@rule("logaddexp", in_place=False)
def logaddexp(a: Any, b: Any) -> Tensor:
    return torch.logsumexp(torch.stack(torch.broadcast_tensors(a, b)), 0)


@rule("vector_norm", "linalg_vector_norm", in_place=False)
def vector_norm(x: Any, ord: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """Where the norm is 0, autograd takes 0 for its slope."""
    x = x if dtype is None else x.to(dtype)
    axes = list(range(x.dim())) if dim is None else [dim] if isinstance(dim, int) else list(dim)
    ord = float(ord)
    if ord == 1:
        return x.abs().sum(axes, keepdim=keepdim)
    if ord in (float("inf"), float("-inf")):
        return x.abs().amax(axes, keepdim=keepdim) if ord > 0 else x.abs().amin(axes, keepdim=keepdim)
    if ord == 0:
        return torch.linalg.vector_norm(value(x), 0, axes, keepdim=keepdim)
    powers = (x.square() if ord == 2 else x.abs() ** ord).sum(axes, keepdim=keepdim)
    none = value(powers) == 0
    return torch.where(none, 0.0, torch.where(none, 1.0, powers) ** (1 / ord)).to(value(x).dtype)


@rule("prod", in_place=False)
def prod(x: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """Pairwise products, so that zeros among the factors do no harm."""
    x = (x if dtype is None else x.to(dtype)).movedim(dim, 0) if dim is not None else x.reshape(-1)
    while x.shape[0] > 1:
        half = x.shape[0] // 2
        paired = x[:half] * x[half : 2 * half]
        x = torch.cat([paired, x[2 * half :]]) if x.shape[0] % 2 else paired
    return x.movedim(0, dim) if dim is not None and keepdim else x[0]


def _picked(x: Taylor, y: Any, dim: int, keepdim: bool) -> Any:
    """(values, indices) of an order statistic along `dim`: every coefficient is taken where the value was found."""
    index = y.indices if keepdim or y.indices.dim() == x.dim() else y.indices.unsqueeze(dim)
    rest = (None if c is None else c.gather(dim, index) for c in x.c[1:])
    shape = y.values.shape
    values = tensor(y.values, *(None if c is None else c.reshape(shape) for c in rest))
    return torch.return_types.__dict__.get(type(y).__name__, type(y))((values, y.indices))


def _extreme(name: str) -> None:
    whole = getattr(torch, f"a{name}")
    along = getattr(torch, name)
    pairwise = getattr(torch, f"{name}imum")

    @rule(name, in_place=False)
    def apply(x: Any, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
        other = dim if isinstance(dim, Tensor) else other
        if other is not None:
            return pairwise(x, other)
        return whole(x, ()) if dim is None else _picked(x, along(x.c[0], dim, keepdim), dim, keepdim)

    @rule(f"a{name}", in_place=False)
    def evenly(x: Taylor, dim: Any = (), keepdim: bool = False) -> Tensor:
        """Ties share the slope evenly, as autograd has it."""
        axes = [dim] if isinstance(dim, int) else list(dim) or list(range(x.dim()))
        y0 = whole(x.c[0], axes, keepdim=True)
        hit = (x.c[0] == y0).to(y0.dtype)
        share = hit / hit.sum(axes, keepdim=True)
        y = tensor(y0, *(None if c is None else (c * share).sum(axes, keepdim=True) for c in x.c[1:]))
        return y if keepdim else y.squeeze(axes)


_extreme("max")
_extreme("min")


@rule("sort", in_place=False)
def sort(x: Taylor, dim: int = -1, descending: bool = False, stable: bool = False) -> Any:
    return _picked(x, torch.sort(x.c[0], dim=dim, descending=descending, stable=stable), dim, True)


@rule("topk", in_place=False)
def topk(x: Taylor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    return _picked(x, torch.topk(x.c[0], k, dim, largest, sorted), dim, True)


@rule("kthvalue", in_place=False)
def kthvalue(x: Taylor, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    return _picked(x, torch.kthvalue(x.c[0], k, dim, keepdim), dim, keepdim)


@rule("cummax", in_place=False)
def cummax(x: Taylor, dim: int) -> Any:
    return _picked(x, torch.cummax(x.c[0], dim), dim, True)


@rule("cummin", in_place=False)
def cummin(x: Taylor, dim: int) -> Any:
    return _picked(x, torch.cummin(x.c[0], dim), dim, True)


@rule("median", in_place=False)
def median(x: Taylor, dim: Any = None, keepdim: bool = False) -> Any:
    if dim is None:
        raise UnsupportedOperation("torch.median", "only the median along a dimension has a rule")
    return _picked(x, torch.median(x.c[0], dim, keepdim), dim, keepdim)
