"""Every rule against double backward in float64."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from taylor_oracle import KINDS, Op, Straight, assert_expansion

POINTWISE: dict[str, Any] = {
    "exp": torch.exp,
    "exp2": torch.exp2,
    "expm1": torch.expm1,
    "log": lambda x: torch.log(x.square() + 0.1),
    "log2": lambda x: (x.square() + 0.1).log2(),
    "log10": lambda x: (x.square() + 0.1).log10(),
    "log1p": lambda x: torch.log1p(x.square()),
    "sqrt": lambda x: torch.sqrt(x.square() + 0.1),
    "rsqrt": lambda x: torch.rsqrt(x.square() + 0.1),
    "reciprocal": lambda x: (x.square() + 0.1).reciprocal(),
    "sin": torch.sin,
    "cos": torch.cos,
    "tan": lambda x: torch.tan(torch.tanh(x)),
    "sinh": torch.sinh,
    "cosh": torch.cosh,
    "tanh": torch.tanh,
    "asin": lambda x: torch.asin(0.9 * torch.tanh(x)),
    "acos": lambda x: torch.acos(0.9 * torch.tanh(x)),
    "atan": torch.atan,
    "erf": torch.erf,
    "erfc": torch.erfc,
    "sigmoid": torch.sigmoid,
    "logit": lambda x: torch.logit(torch.sigmoid(x)),
    "logit_eps": lambda x: torch.logit(torch.sigmoid(x), eps=0.3),
    "abs": torch.abs,
    "frac": torch.frac,
    "square": torch.square,
    "pow0": lambda x: x**0,
    "pow1": lambda x: x**1,
    "pow2": lambda x: x**2,
    "pow3": lambda x: torch.pow(x, 3),
    "pow_half": lambda x: (x.square() + 1) ** 0.5,
    "pow_negative": lambda x: x ** (-2),
    "rpow": lambda x: 2.0**x,
    "pow_tensor": lambda x: x ** torch.arange(4.0, dtype=x.dtype),
    "pow_taylor": lambda x: (x.square() + 1) ** x,
    "relu": F.relu,
    "relu6": F.relu6,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.2),
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "mish": F.mish,
    "softplus": F.softplus,
    "softplus_threshold": lambda x: F.softplus(x, beta=2.0, threshold=1.0),
    "elu": lambda x: F.elu(x, 1.3),
    "selu": F.selu,
    "hardtanh": lambda x: F.hardtanh(x, -0.5, 0.7),
    "hardswish": F.hardswish,
    "softsign": F.softsign,
    "logsigmoid": F.logsigmoid,
    "tanhshrink": F.tanhshrink,
    "hardshrink": lambda x: F.hardshrink(x, 0.3),
    "softshrink": lambda x: F.softshrink(x, 0.3),
    "threshold": lambda x: F.threshold(x, 0.1, 20.0),
    "glu": lambda x: F.glu(x, 0),
    "clamp": lambda x: x.clamp(-0.3, 0.6),
    "clamp_min": lambda x: x.clamp(min=0.1),
    "clamp_max": lambda x: torch.clamp_max(x, 0.1),
    "softmin": lambda x: F.softmin(x, 1),
    "rrelu_eval": lambda x: F.rrelu(x),
}

_INDEX = torch.tensor([2, 0, 2, 1])
_MASK = torch.arange(24).view(2, 3, 4) % 3 == 0

# of one tensor (2, 3, 4)
SHAPING: dict[str, Any] = {
    "reshape": lambda x: x.reshape(6, -1),
    "view": lambda x: x.view(-1, 4),
    "flatten": lambda x: x.flatten(1),
    "transpose": lambda x: x.transpose(1, 2),
    "permute": lambda x: x.permute(2, 0, 1),
    "movedim": lambda x: x.movedim(0, -1),
    "T": lambda x: x[0].T,
    "mT": lambda x: x.mT,
    "squeeze": lambda x: x[:1].squeeze(0),
    "unsqueeze": lambda x: x.unsqueeze(1),
    "expand": lambda x: x[:1].expand(5, -1, -1),
    "unflatten": lambda x: x.unflatten(2, (2, 2)),
    "getitem": lambda x: x[:, 1:, ::2],
    "getitem_index": lambda x: x[:, :, _INDEX],
    "getitem_mask": lambda x: x[_MASK],
    "getitem_positive": lambda x: x[x > 0],
    "none": lambda x: x[:, None, ..., 0],
    "select": lambda x: x.select(1, 2),
    "narrow": lambda x: x.narrow(2, 1, 2),
    "chunk": lambda x: list(x.chunk(2, -1)),
    "split": lambda x: list(x.split(3, 2)),
    "torch_split": lambda x: list(torch.split(x, [1, 3], dim=-1)),
    "unbind": lambda x: sum(i * y for i, y in enumerate(x.unbind(2))),
    "iterate": lambda x: [a * b for a, b in [tuple(x)]],
    "roll": lambda x: x.roll((1, 2), (0, 2)),
    "flip": lambda x: x.flip(1),
    "repeat": lambda x: x.repeat(1, 2, 1),
    "repeat_interleave": lambda x: x.repeat_interleave(2, 1),
    "index_select": lambda x: x.index_select(2, _INDEX),
    "gather": lambda x: x.gather(2, _INDEX.expand(2, 3, 4)),
    "cumsum": lambda x: x.cumsum(1),
    "sum": lambda x: x.sum((0, 2)),
    "sum_all": lambda x: x.sum(),
    "mean": lambda x: x.mean(dim=(1, 2), keepdim=True),
    "var": lambda x: x.var(1),
    "var_biased": lambda x: torch.var(x, dim=(0, 2), unbiased=False),
    "std": lambda x: x.std((1, 2), correction=0, keepdim=True),
    "var_mean": lambda x: list(torch.var_mean(x, dim=2)),
    "prod": lambda x: x.prod(2),
    "prod_all": lambda x: x.prod(),
    "logsumexp": lambda x: x.logsumexp((1, 2)),
    "logsumexp_keep": lambda x: torch.logsumexp(x, 1, keepdim=True),
    "softmax": lambda x: x.softmax(-1),
    "log_softmax": lambda x: F.log_softmax(x, dim=1),
    "norm": lambda x: x.norm(dim=1),
    "norm1": lambda x: torch.norm(x, p=1),
    "norm3": lambda x: torch.linalg.vector_norm(x, 3, dim=(1, 2)),
    "norm_inf": lambda x: torch.linalg.vector_norm(x, float("inf"), dim=2),
    "normalize": lambda x: F.normalize(x, dim=-1),
    "max": lambda x: x.max(2).values,
    "max_all": lambda x: x.max(),
    "min": lambda x: torch.min(x, dim=1)[0],
    "amax": lambda x: x.amax((1, 2)),
    "amin": lambda x: x.amin(0),
    "sort": lambda x: x.sort(-1)[0],
    "topk": lambda x: x.topk(2, -1).values,
    "kthvalue": lambda x: x.kthvalue(2, 1).values,
    "median": lambda x: x.median(2).values,
    "cummax": lambda x: x.cummax(2)[0],
    "pad": lambda x: F.pad(x, (1, 2, 0, 1), value=3.0),
    "pad_reflect": lambda x: F.pad(x, (1, 2), mode="reflect"),
    "pad_replicate": lambda x: F.pad(x, (1, 1), mode="replicate"),
    "pad_circular": lambda x: F.pad(x, (1, 2), mode="circular"),
    "interpolate": lambda x: F.interpolate(x, scale_factor=2.0),
    "interpolate_linear": lambda x: F.interpolate(x, size=7, mode="linear", align_corners=False),
    "interpolate_bilinear": lambda x: F.interpolate(x[None], size=(5, 6), mode="bilinear"),
    "interpolate_bicubic": lambda x: F.interpolate(x[None], scale_factor=2, mode="bicubic"),
    "avg_pool": lambda x: F.avg_pool1d(x, 2, 1),
    "avg_pool2d": lambda x: F.avg_pool2d(x, 2, padding=1, count_include_pad=False),
    "adaptive_avg_pool": lambda x: F.adaptive_avg_pool2d(x, (2, 1)),
    "max_pool1d": lambda x: F.max_pool1d(x, 2),
    "max_pool2d": lambda x: F.max_pool2d(x, 2, stride=1),
    "max_pool2d_pad": lambda x: F.max_pool2d(x, kernel_size=3, stride=2, padding=1, ceil_mode=True),
    "max_pool_indices": lambda x: F.max_pool2d(x, 2, return_indices=True)[0],
    "max_pool3d": lambda x: F.max_pool3d(x[None], 2),
    "adaptive_max_pool": lambda x: F.adaptive_max_pool2d(x, (1, 2)),
    "lp_pool": lambda x: F.lp_pool2d(x.exp(), 2.0, 2),
    "max_unpool": lambda x: F.max_unpool1d(*F.max_pool1d(x, 2, return_indices=True), 2),
    "unfold": lambda x: F.unfold(x[None], 2),
    "fold": lambda x: F.fold(x.reshape(1, 4, 6), (3, 4), 2),
    "pixel_shuffle": lambda x: F.pixel_shuffle(x.reshape(1, 4, 2, 3), 2),
    "tensor_unfold": lambda x: x.unfold(2, 2, 1),
    "masked_fill": lambda x: x.masked_fill(_MASK, 2.0),
    "where_number": lambda x: torch.where(x > 0, x, 0.5),
    "tril": lambda x: x.tril(),
    "diagonal": lambda x: x.diagonal(0, 1, 2),
    "einsum_one": lambda x: torch.einsum("ijk->ki", x),
    "double": lambda x: x.float().double().to(torch.float64) * 0 + x,
    "type_as": lambda x: x.type_as(x),
    "clone": lambda x: x.clone(),
    "contiguous": lambda x: x.transpose(0, 2).contiguous(),
    "detach": lambda x: x * x.detach(),
    "item": lambda x: x * x.sum().item(),
    "data": lambda x: x * x.data,
    "sign": lambda x: x * x.sign(),
    "argmax": lambda x: x * x.argmax(2, keepdim=True),
    "zeros_like": lambda x: torch.zeros_like(x) + x,
    "new_ones": lambda x: x.new_ones(2, 3, 4) * x,
    "if": lambda x: x * x if x.sum() > 0 else -x * x,
    "len": lambda x: x * len(x),
    "shape": lambda x: x.view(x.shape[0], x.size(1) * x.size(-1)),
    "rsub": lambda x: 1 - x * x,
    "rdiv": lambda x: 2 / (x * x + 1),
    "neg": lambda x: -x * +x,
    "local_response_norm": lambda x: F.local_response_norm(x, 2),
    "instance_norm": lambda x: F.instance_norm(x),
    "layer_norm_plain": lambda x: F.layer_norm(x, (3, 4)),
    "rms_norm": lambda x: F.rms_norm(x, (4,)),
    "group_norm_plain": lambda x: F.group_norm(x, 3),
    "setitem": lambda x: _set(x),
    "scatter_number": lambda x: x.scatter(2, torch.zeros(2, 3, 1, dtype=torch.long), 1.0),
    "index_fill": lambda x: x.index_fill(1, torch.tensor([1]), 7.0),
    "hsplit": lambda x: list(torch.hsplit(x, 3)),
    "atleast": lambda x: torch.atleast_2d(x[0, 0]),
    "feature_shuffle": lambda x: torch.channel_shuffle(x.reshape(1, 4, 2, 3), 2),
    "logaddexp": lambda x: torch.logaddexp(x[0], x[1]),
    "cosine": lambda x: F.cosine_similarity(x[0], x[1], dim=-1),
    "maximum": lambda x: torch.maximum(x[0], x[1]),
    "minimum": lambda x: torch.min(x[0], x[1]),
    "hypot": lambda x: torch.hypot(x[0], x[1]),
    "lerp": lambda x: torch.lerp(x[0], x[1], 0.3),
    "addcmul": lambda x: torch.addcmul(x[0], x[0], x[1], value=0.5),
    "addcdiv": lambda x: torch.addcdiv(x[0], x[0], x[1].exp()),
    "floor_mode": lambda x: x * torch.div(x, 0.1, rounding_mode="floor"),
}


def _set(x: torch.Tensor) -> torch.Tensor:
    y = x * 2
    y[:, 0] = x[:, 1] * x[:, 2]
    y[0, 1, 2] = 3.0
    return y


@KINDS
@pytest.mark.parametrize("name", POINTWISE)
def test_pointwise(name: str, kind: type[Op]) -> None:
    assert_expansion(kind(POINTWISE[name], [(6, 4)]))


@KINDS
@pytest.mark.parametrize("name", SHAPING)
def test_of_one_tensor(name: str, kind: type[Op]) -> None:
    assert_expansion(kind(SHAPING[name], [(2, 3, 4)], seed=4))


def test_a_choice_between_something_small_that_moves_and_something_large_that_does_not() -> None:
    """A constant that is larger than the condition and the scalar, and a sum over the choice."""
    later = torch.arange(5)[:, None] > 2
    assert_expansion(Op(lambda x: torch.where(later, torch.ones(5, 3).double(), x).sum(1), [()]))


@pytest.mark.parametrize("after", [lambda y: y.sum(1), lambda y: y.cumsum(1), lambda y: y @ torch.ones(4, 2).double()])
def test_log_softmax_of_what_moves_along_a_line(after: Any) -> None:
    assert_expansion(Straight(lambda x: after(x.log_softmax(1)), [(3, 4)]))
