"""The same numbers by autograd's double backward, in float64. Never by nested forward mode (SCIENCE.md, trap 1)."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves

from runner.curvature.taylor import expand, split_terms

Vector = dict[str, Tensor]


class Op(nn.Module):
    """function(z, …) with z = p q elementwise, so that what the function is given has all three coefficients."""

    def __init__(self, function: Callable[..., Any], shapes: Sequence[tuple[int, ...]], seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        draw = lambda shape: nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64))  # noqa: E731
        self.p = nn.ParameterList(draw(shape) for shape in shapes)
        self.q = nn.ParameterList(draw(shape) for shape in shapes)
        self.function = function

    def forward(self, _: Any) -> Any:
        return self.function(*(p * q for p, q in zip(self.p, self.q, strict=True)))


class Straight(Op):
    """function(p, …): what it is given moves along a straight line, so that its second coefficient is None."""

    def forward(self, _: Any) -> Any:
        return self.function(*self.p)


KINDS = pytest.mark.parametrize("kind", [Op, Straight])


def random_direction(model: nn.Module, seed: int = 1) -> Vector:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p)
        for name, p in model.named_parameters()
        if p.requires_grad
    }


def copies(model: nn.Module) -> Vector:
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


def sweep(model: nn.Module, v: Vector, inputs: Any = None, **options: Any) -> tuple[Any, Any, Any]:
    with torch.random.fork_rng():
        return expand(model, dict(model.named_parameters()), v, dict(model.named_buffers()), inputs, **options)


def outputs(model: nn.Module, leaves: Vector, inputs: Any) -> Any:
    frozen = {name: p.detach() for name, p in model.named_parameters() if name not in leaves}
    with torch.random.fork_rng(), sdpa_kernel(SDPBackend.MATH):
        return functional_call(model, {**frozen, **leaves, **copies(model)}, (inputs,))


def along(scalar: Tensor, leaves: Vector, v: Vector) -> tuple[Tensor, Tensor]:
    """v'grad s and v'(grad2 s)v of a scalar s, by double backward."""
    if not scalar.requires_grad:
        return scalar.new_zeros(()), scalar.new_zeros(())
    names = list(v)
    options: dict[str, Any] = {"allow_unused": True, "materialize_grads": True}
    slopes = torch.autograd.grad(scalar, [leaves[n] for n in names], create_graph=True, **options)
    slope = torch.stack([(s * v[n]).sum() for s, n in zip(slopes, names, strict=True)]).sum()
    if not slope.requires_grad:
        return slope.detach(), slope.new_zeros(())
    curved = torch.autograd.grad(slope, [leaves[n] for n in names], retain_graph=True, **options)
    return slope.detach(), torch.stack([(c * v[n]).sum() for c, n in zip(curved, names, strict=True)]).sum()


def leaves_of(model: nn.Module, v: Vector) -> Vector:
    return {name: p.detach().requires_grad_() for name, p in model.named_parameters() if name in v}


def floats(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def assert_expansion(
    model: nn.Module, inputs: Any = None, reference: nn.Module | None = None, tolerance: float = 1e-10, **options: Any
) -> None:
    """f0, f1 and f2 agree with double backward, each output along a random covector."""
    v = random_direction(model)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        f0, f1, f2 = sweep(model, v, inputs, **options)
        leaves = leaves_of(reference or model, v)
        truth = outputs(reference or model, leaves, inputs)
    generator = torch.Generator().manual_seed(2)
    assert len(floats(f0)) == len(floats(truth)) > 0
    for y0, y1, y2, y in zip(floats(f0), floats(f1), floats(f2), floats(truth), strict=True):
        torch.testing.assert_close(y0, y.detach(), rtol=1e-11, atol=1e-11)
        u = torch.randn(y.shape, generator=generator, dtype=y.dtype)
        slope, curved = along((u * y).sum(), leaves, v)
        first, second = (u * y1).sum(), (u * y2).sum()
        assert abs(first - slope) <= tolerance * ((u * y1).abs().sum() + slope.abs()), ("f1", first, slope)
        rounding = 1e-14 * slope.abs()  # all there is of a function that is linear, but not computed so
        scale = tolerance * ((u * y2).abs().sum() + curved.abs()) + rounding
        assert abs(second - curved) <= scale, ("f2", second, curved)


def split_by_double_backward(
    model: nn.Module, loss_fn: Callable[[Any, Any], Tensor], inputs: Any, targets: Any, v: Vector
) -> tuple[float, float, float]:
    """v'Hv from the loss; v'H_r v from c'F with c = dL/dF held fixed; v'Gv from J v and the loss's own curvature."""
    leaves = leaves_of(model, v)
    hessian = along(loss_fn(outputs(model, leaves, inputs), targets), leaves, v)[1]
    y = outputs(model, leaves, inputs)
    fixed = y.detach().requires_grad_()
    (c,) = torch.autograd.grad(loss_fn(fixed, targets), fixed, create_graph=True)
    residual = along((c.detach() * y).sum(), leaves, v)[1]
    u = torch.zeros_like(y, requires_grad=True)
    pulled = torch.autograd.grad((y * u).sum(), list(leaves.values()), create_graph=True)
    (jv,) = torch.autograd.grad(sum((p * v[n]).sum() for p, n in zip(pulled, leaves, strict=True)), u)
    (curved,) = torch.autograd.grad((c * jv).sum(), fixed)
    return hessian.item(), (curved * jv).sum().item(), residual.item()


def assert_split(
    model: nn.Module, loss_fn: Callable[[Any, Any], Tensor], inputs: Any, targets: Any,
    tolerance: float = 1e-10, reference: nn.Module | None = None, **options: Any,
) -> None:  # fmt: skip
    v = random_direction(model)
    truth = split_by_double_backward(reference or model, loss_fn, inputs, targets, v)
    found = [t.item() for t in split_terms(loss_fn, *sweep(model, v, inputs, **options), targets)]
    scale = abs(truth[1]) + abs(truth[2])
    assert max(abs(a - b) for a, b in zip(found, truth, strict=True)) <= tolerance * scale, (found, truth)
