"""Every rule of several tensors against double backward in float64."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from taylor_oracle import KINDS, Op, assert_expansion

_INDEX = torch.tensor([2, 0, 2, 1])
_MASK = torch.arange(24).view(2, 3, 4) % 3 == 0
_ROWS = torch.tensor([True, False, True])
_A, _B, _C = (2, 3, 4), (2, 4, 5), (5,)

PRODUCTS: dict[str, tuple[Any, list[tuple[int, ...]]]] = {
    "matmul": (torch.matmul, [_A, _B]),
    "at": (lambda a, b: a @ b, [_A, (4, 5)]),
    "bmm": (torch.bmm, [_A, _B]),
    "mm": (torch.mm, [(3, 4), (4, 2)]),
    "mv": (torch.mv, [(3, 4), (4,)]),
    "dot": (torch.dot, [(4,), (4,)]),
    "outer": (torch.outer, [(3,), (4,)]),
    "rmatmul": (lambda a: torch.ones(2, 3, dtype=a.dtype) @ a, [(3, 4)]),
    "einsum": (lambda a, b: torch.einsum("bij,bjk->ik", a, b), [_A, _B]),
    "einsum3": (lambda a, b, c: torch.einsum("bij,bjk,k->b", a, b, c), [_A, _B, _C]),
    "tensordot": (lambda a, b: torch.tensordot(a, b, dims=1), [_A, (4, 2)]),
    "addmm": (lambda x, a, b: torch.addmm(x, a, b, beta=0.5, alpha=2), [(2,), (3, 4), (4, 2)]),
    "baddbmm": (torch.baddbmm, [(2, 3, 5), _A, _B]),
    "addbmm": (torch.addbmm, [(3, 5), _A, _B]),
    "bilinear": (lambda a, b, w, c: F.bilinear(a, b, w, c), [(3, 4), (3, 2), (5, 4, 2), (5,)]),
    "kron": (torch.kron, [(2, 2), (2, 3)]),
    "linear": (F.linear, [(3, 4), (5, 4), (5,)]),
    "linear_3d": (F.linear, [(2, 3, 4), (5, 4)]),
    "linear_1d": (F.linear, [(4,), (5, 4), (5,)]),
    "linear_keywords": (lambda x, w, b: F.linear(bias=b, weight=w, input=x), [(3, 4), (5, 4), (5,)]),
    "conv1d": (lambda x, w, b: F.conv1d(x, w, b, stride=2, padding=1), [(2, 3, 7), (4, 3, 3), (4,)]),
    "conv2d": (lambda x, w, b: F.conv2d(x, w, b, padding="same", dilation=2), [(2, 3, 5, 6), (4, 3, 3, 3), (4,)]),
    "conv2d_grouped": (lambda x, w: F.conv2d(x, w, stride=(2, 1), groups=2), [(2, 4, 5, 6), (6, 2, 3, 2)]),
    "conv3d": (lambda x, w: F.conv3d(x, w, padding=1), [(1, 2, 3, 4, 3), (2, 2, 3, 3, 3)]),
    "conv_unbatched": (lambda x, w: F.conv2d(x, w), [(2, 4, 4), (3, 2, 3, 3)]),
    "conv_transpose1d": (
        lambda x, w, b: F.conv_transpose1d(x, w, b, stride=2, output_padding=1),
        [(2, 3, 4), (3, 2, 3), (2,)],
    ),
    "conv_transpose2d": (
        lambda x, w, b: F.conv_transpose2d(x, w, b, stride=2, padding=1, groups=2, dilation=2),
        [(2, 4, 3, 4), (4, 2, 3, 3), (4,)],
    ),
    "conv_transpose3d": (lambda x, w: F.conv_transpose3d(x, w), [(1, 2, 2, 3, 2), (2, 2, 2, 2, 2)]),
    "mul_broadcast": (lambda a, b: a * b, [_A, (3, 1)]),
    "add_broadcast": (lambda a, b: torch.add(a, b, alpha=0.3), [_A, (4,)]),
    "sub": (lambda a, b: torch.sub(other=b, input=a, alpha=2), [_A, (3, 1)]),
    "div": (lambda a, b: a / (b.exp() + 1), [_A, (4,)]),
    "where": (lambda a, b: torch.where(a > b, a, b * b), [_A, (4,)]),
    "cat": (lambda a, b: torch.cat([a, b, torch.ones(2, 1, 4, dtype=a.dtype)], 1), [_A, (2, 1, 4)]),
    "cat_integers": (lambda a: torch.cat([a, torch.ones(2, 1, 4, dtype=torch.long)], 1), [_A]),
    "index_put": (lambda a, b: a.index_put((torch.tensor([0, 1]), torch.tensor([2, 0])), b), [_A, (2, 4)]),
    "stack": (lambda a, b: torch.stack((a, b), -1), [_A, _A]),
    "hstack": (lambda a, b: torch.hstack([a, b]), [_A, _A]),
    "index_add": (lambda a, b: a.index_add(2, _INDEX, b, alpha=2), [_A, (2, 3, 4)]),
    "scatter_add": (lambda a, b: a.scatter_add(2, _INDEX.expand(2, 3, 4), b), [_A, _A]),
    "scatter": (lambda a, b: a.scatter(2, torch.tensor([[[3, 0]]]).expand(2, 3, 2), b), [_A, (2, 3, 2)]),
    "masked_fill_taylor": (lambda a, b: a.masked_fill(_MASK, b[0]), [_A, (1,)]),
    "broadcast_tensors": (lambda a, b: list(torch.broadcast_tensors(a, b)), [_A, (4,)]),
    "prelu": (F.prelu, [(2, 3, 4), (3,)]),
    "prelu_one": (F.prelu, [(2, 3, 4), (1,)]),
    "embedding": (lambda w: F.embedding(_INDEX, w, padding_idx=1), [(4, 3)]),
    "embedding_bag": (lambda w: F.embedding_bag(_INDEX.view(2, 2), w), [(4, 3)]),
    "batch_norm": (lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True), [(4, 3, 2, 2), (3,), (3,)]),
    "batch_norm_rows": (lambda x, w, b: F.batch_norm(x, None, None, w, b, True), [(6, 3), (3,), (3,)]),
    "batch_norm_plain": (lambda x: F.batch_norm(x, None, None, None, None, True), [(4, 3, 5)]),
    "batch_norm_channels_last": (
        lambda x, w, b: F.batch_norm(x.contiguous(memory_format=torch.channels_last), None, None, w, b, training=True),
        [(4, 3, 2, 2), (3,), (3,)],
    ),
    "batch_norm_3d": (lambda x, w: F.batch_norm(x, None, None, w, None, True), [(3, 2, 2, 2, 2), (2,)]),
    "batch_norm_eval": (
        lambda x, w, b: F.batch_norm(x, torch.ones(3, dtype=x.dtype), 2 * torch.ones(3, dtype=x.dtype), w, b),
        [(4, 3, 2, 2), (3,), (3,)],
    ),
    "layer_norm": (lambda x, w, b: F.layer_norm(x, (3, 4), w, b), [_A, (3, 4), (3, 4)]),
    "group_norm": (lambda x, w, b: F.group_norm(x, 2, w, b), [(2, 4, 3), (4,), (4,)]),
    "instance_norm_affine": (lambda x, w, b: F.instance_norm(x, weight=w, bias=b), [(2, 3, 4), (3,), (3,)]),
    "layer_norm, weight of other strides": (
        lambda x, w: F.layer_norm(x, (3, 4), w.t()),
        [(2, 3, 4), (4, 3)],
    ),
    "rms_norm_affine": (lambda x, w: F.rms_norm(x, (4,), w, 1e-3), [_A, (4,)]),
    "attention": (F.scaled_dot_product_attention, [(2, 3, 4), (2, 5, 4), (2, 5, 2)]),
    "attention_causal": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.3),
        [(2, 2, 3, 4), (2, 2, 3, 4), (2, 2, 3, 2)],
    ),
    "attention_mask": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=_MASK[0, :3, :].logical_not()),
        [(2, 3, 4), (2, 4, 4), (2, 4, 2)],
    ),
    "attention_nothing_to_attend_to": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=_ROWS[:, None] & _MASK[0, :3, :]),
        [(2, 3, 4), (2, 4, 4), (2, 4, 2)],
    ),
    "attention_nothing_to_attend_to, in numbers": (
        lambda q, k, v: F.scaled_dot_product_attention(
            q, k, v, attn_mask=torch.zeros(3, 4, dtype=q.dtype).masked_fill(~_ROWS[:, None], -torch.inf)
        ),
        [(2, 3, 4), (2, 4, 4), (2, 4, 2)],
    ),
    "attention_bias": (
        lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, m),
        [(2, 3, 4), (2, 5, 4), (2, 5, 2), (3, 5)],
    ),
    "attention_grouped": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True),
        [(1, 4, 3, 2), (1, 2, 3, 2), (1, 2, 3, 2)],
    ),
    "attention_dropout": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, dropout_p=0.4),
        [(2, 3, 4), (2, 5, 4), (2, 5, 2)],
    ),
    "cross": (lambda a, b: torch.linalg.cross(a, b), [(4, 3), (4, 3)]),
    "unused": (lambda a, b: a.exp(), [(3,), (3,)]),
}


@KINDS
@pytest.mark.parametrize("name", PRODUCTS)
def test_of_several_tensors(name: str, kind: type[Op]) -> None:
    function, shapes = PRODUCTS[name]
    assert_expansion(kind(function, shapes))
