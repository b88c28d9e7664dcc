"""What does not depend on t: shapes and flags, comparisons, values that autograd too takes for constants."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from runner.curvature.taylor.context import ensure_original_layout
from runner.curvature.taylor.registry import RULES, functions, names, rule, rule_for
from runner.curvature.taylor.shape import _values
from runner.curvature.taylor.tensor import Taylor, UnsupportedOperation

# new tensors in the layout of an old one, which random draws may fill
LIKES = names("empty_like zeros_like ones_like full_like rand_like randn_like randint_like")

# how a tensor lies in memory
LAYOUT = names("stride storage_offset is_contiguous dim_order")

# steps and choices: constant almost everywhere, and autograd's derivative is none or zero
STEPS = names("""
eq ne lt le gt ge equal allclose isclose greater greater_equal less less_equal not_equal __eq__ __ne__ __lt__ __le__
__gt__ __ge__ __bool__ __len__ __contains__ __format__ isnan isinf isfinite isneginf isposinf isreal is_nonzero
logical_and logical_or logical_not logical_xor argmax argmin argsort argwhere nonzero count_nonzero any all
searchsorted bucketize sign sgn floor ceil round trunc fix signbit long int short char byte bool item tolist __int__
__float__ __index__ dim ndimension size numel nelement element_size
is_floating_point is_complex is_signed get_device is_same_size is_conj is_neg is_inference new_empty
new_zeros new_ones new_full new_tensor result_type can_cast promote_types
""")

ATTRIBUTES = names("""
shape dtype device ndim layout is_cuda is_cpu is_mps is_xpu is_meta is_sparse is_sparse_csr is_quantized is_mkldnn
is_nested is_vulkan is_xla is_ipu is_maia is_mtia itemsize nbytes names is_leaf
""")


_getters = {
    name: getattr(Tensor, name).__get__
    for name in (*ATTRIBUTES, *names("data requires_grad grad grad_fn"))
    if hasattr(Tensor, name)
}


def _constant(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return function(*_values(args), **{key: _values(entry) for key, entry in kwargs.items()})


for _name in STEPS:
    for _function in functions(_name):
        RULES[_function] = partial(_constant, _function)


def _like(function: Callable[..., Any], x: Any, *args: Any, **kwargs: Any) -> Any:
    ensure_original_layout(x.c[0])
    return _constant(function, x, *args, **kwargs)


for _name in (*LIKES, *LAYOUT):
    for _function in functions(_name):
        RULES[_function] = partial(_like, _function)

for _name in ATTRIBUTES:
    if _name in _getters:
        RULES[_getters[_name]] = partial(_constant, _getters[_name])


@rule("detach", in_place=False)
def detach(x: Taylor) -> Tensor:
    """Constant to autograd, hence no part of the Hessian. It shares memory with x, which must not be written to now."""
    x.leaked = True
    for other in (ref() for ref in x.kin):
        if other is not None:
            other.leaked = True
    return x.c[0].detach()


rule_for(_getters["data"])(detach)


@rule_for(_getters["requires_grad"])
def requires_grad(x: Taylor) -> bool:
    """As in a training step."""
    return True


@rule_for(_getters["grad"], _getters["grad_fn"])
def no_graph(x: Taylor) -> None:
    return None


@rule("requires_grad_", in_place=False)
def requires_grad_(x: Taylor, requires_grad: bool = True) -> Taylor:
    if not requires_grad:
        raise UnsupportedOperation("torch.Tensor.requires_grad_", "it cuts the graph in place")
    return x
