"""Products: linear layers, matrix products, embeddings, and everything else that is linear in each of its tensors."""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from runner.curvature.taylor.arithmetic import Coefficient, multilinear_tensor
from runner.curvature.taylor.context import current
from runner.curvature.taylor.registry import RULES, functions, rule
from runner.curvature.taylor.tensor import Taylor, UnsupportedOperation, series, tensor, value

_linear = torch._C._nn.linear


def add_product(total: Coefficient, x: Tensor, w: Tensor, b: Coefficient) -> Tensor:
    """total + x w' + b with x (…, in) and w (out, in), added up inside the matrix product where that can be."""
    if total is None:
        return _linear(x, w, b)
    if current().transformed or w.dim() != 2 or b is not None:
        return total + _linear(x, w, b)
    total.view(-1, w.shape[0]).addmm_(x.reshape(-1, w.shape[1]), w.t())
    return total


@rule("linear", in_place=False)
def linear(input: Any, weight: Any, bias: Any = None) -> Tensor:
    """y_k = W0 x_k + W1 x_{k-1} + W2 x_{k-2} + b_k"""
    x, w, b = series(input), series(weight), list(series(bias))
    y: list[Coefficient] = []
    for k in range(3):
        total: Coefficient = None
        for j in range(k + 1):
            x_i, w_j = x[k - j], w[j]
            if x_i is not None and w_j is not None:
                total = add_product(total, x_i, w_j, b[k] if total is None else None)
                b[k] = None
        bias_k, y_0 = b[k], y[0] if y else None
        y.append(total if bias_k is None or y_0 is None else bias_k.expand(y_0.shape))  # only the bias moves
    return tensor(*y)  # type: ignore[arg-type]


def _multilinear_rules(names: str) -> None:
    for name in names.split():
        for function in functions(name):
            RULES[function] = partial(multilinear_tensor, function)


_multilinear_rules("matmul __matmul__ mm bmm mv dot vdot inner outer ger kron chain_matmul cross linalg_cross")


@rule("bilinear", in_place=False)
def bilinear(input1: Any, input2: Any, weight: Any, bias: Any = None) -> Tensor:
    y = multilinear_tensor(lambda a, b, w: F.bilinear(a, b, w), input1, input2, weight)
    return y if bias is None else y + bias


@rule("__rmatmul__", in_place=False)
def rmatmul(b: Any, a: Any) -> Tensor:
    return torch.matmul(a, b)


@rule("multi_dot", "linalg_multi_dot", in_place=False)
def multi_dot(tensors: Any) -> Tensor:
    return multilinear_tensor(lambda *factors: torch.linalg.multi_dot(factors), *tensors)


@rule("einsum", in_place=False)
def einsum(*operands: Any, **kwargs: Any) -> Tensor:
    equation, *factors = operands
    if not isinstance(equation, str):
        raise UnsupportedOperation("torch.einsum", "write its equation as a string")
    if len(factors) == 1 and isinstance(factors[0], list | tuple):
        factors = list(factors[0])
    return multilinear_tensor(lambda *chosen: torch.einsum(equation, *chosen), *factors)


@rule("tensordot", in_place=False)
def tensordot(a: Any, b: Any, dims: Any = 2, out: None = None) -> Tensor:
    return multilinear_tensor(lambda p, q: torch.tensordot(p, q, dims), a, b)


def _plus_product(name: str) -> None:
    product: Any = {"addmm": torch.mm, "addmv": torch.mv, "addr": torch.outer, "baddbmm": torch.bmm}.get(name)

    @rule(name)
    def apply(x: Any, a: Any, b: Any, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
        y = torch.bmm(a, b).sum(0) if name == "addbmm" else product(a, b)
        y = y if alpha == 1 else y * alpha
        return y if beta == 0 else y + (x if beta == 1 else x * beta)


for _name in ("addmm", "addmv", "addr", "baddbmm", "addbmm"):
    _plus_product(_name)


@rule("embedding", in_place=False)
def embedding(
    weight: Any, indices: Tensor, padding_idx: int = -1, scale_grad_by_freq: bool = False, sparse: bool = False
) -> Tensor:
    """Rows of the weights. `padding_idx` has no gradient in torch, so here its rows are constants."""
    if scale_grad_by_freq:
        raise UnsupportedOperation("torch.embedding", "with scale_grad_by_freq its gradient is that of no function")
    w0, *rest = series(weight)
    rows = [None if w is None else F.embedding(indices, w) for w in rest]
    if padding_idx >= 0:
        rows = [None if r is None else r.masked_fill((indices == padding_idx).unsqueeze(-1), 0) for r in rows]
    return tensor(F.embedding(indices, w0), *rows)


@rule("embedding_bag", in_place=False)
def embedding_bag(
    weight: Any,
    indices: Tensor,
    offsets: Any = None,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: Any = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> tuple[Tensor, None, None, None]:
    if mode == 2 or scale_grad_by_freq:
        raise UnsupportedOperation(
            "torch.embedding_bag", "only the modes 'sum' and 'mean', without scaling by frequency, have a rule"
        )

    def bag(w: Tensor, p: Tensor | None) -> Tensor:
        return torch.embedding_bag(w, indices, offsets, False, mode, sparse, p, include_last_offset, padding_idx)[0]

    if per_sample_weights is None:
        w0, w1, w2 = series(weight)
        return tensor(bag(w0, None), *(None if w is None else bag(w, None) for w in (w1, w2))), None, None, None
    return multilinear_tensor(bag, weight, per_sample_weights), None, None, None


@rule("_weight_norm", "_weight_norm_interface", in_place=False)
def weight_norm(v: Taylor, g: Any, dim: int = 0) -> Tensor:
    return v * (g / torch.norm_except_dim(v, 2, dim))


@rule("norm_except_dim", in_place=False)
def norm_except_dim(v: Taylor, pow: int = 2, dim: int = 0) -> Tensor:
    axes = [d for d in range(v.dim()) if d != (dim % v.dim() if dim != -1 else None)]
    return torch.linalg.vector_norm(v, pow, axes, keepdim=dim != -1)


@rule("cosine_similarity", in_place=False)
def cosine_similarity(x1: Any, x2: Any, dim: int = 1, eps: float = 1e-8) -> Tensor:
    a, b = torch.broadcast_tensors(x1, x2)
    lengths = [torch.linalg.vector_norm(v, 2, dim, keepdim=True) for v in (a, b)]
    unit_a, unit_b = (v / torch.where(value(n) > eps, n, eps) for v, n in zip((a, b), lengths, strict=True))
    return (unit_a * unit_b).sum(dim)
