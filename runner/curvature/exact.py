"""Exact second derivatives along a direction, by double backward: the slow and general way.

Reverse mode over reverse mode is right through every normalisation layer, where nested forward mode is not (relative
errors of 2e-3 to 0.28 were measured for jvp of jvp through batch and layer norm).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import register_dataclass, tree_leaves, tree_map

from runner.curvature.batch_loss import BatchLoss, gradient
from runner.curvature.forward import Split
from runner.curvature.precision import exact_arithmetic
from runner.curvature.streamed import Loss, additive
from runner.curvature.vectors import Vector, dot

Product = Callable[[Vector], Vector]


@dataclass(frozen=True)
class HessianProduct:
    """`product` = H v, a dict of parameter name to tensor; `gHg` = v'Hv, a 0-d tensor. v is g unless chosen."""

    product: Vector
    gHg: Tensor


register_dataclass(HessianProduct)  # so that products with parts of a loss can be added


def hessian_map(loss: BatchLoss) -> Product:
    """v -> H v = grad (g'v), the derivative of the gradient along v. The graph of g is kept."""
    with exact_arithmetic(loss.device), torch.enable_grad():
        leaves = loss.leaves()
        g = gradient(loss(leaves).sum(), leaves, create_graph=True)

    def product(v: Vector) -> Vector:
        with exact_arithmetic(loss.device), torch.enable_grad():
            return gradient(dot(g, v), leaves, retain_graph=True)

    return product


def gauss_newton_map(loss: BatchLoss) -> Product:
    """v -> G v = J'[d2L/dF2] J v. J v comes from two backward passes: u -> J'u is linear, and its transpose is J.

    It is transposed at a random u: at zero, a backward pass that goes through the logarithm of what it is given
    (logcumsumexp) has no derivative, and at one that is not random, sums may be zero that are none."""
    with exact_arithmetic(loss.device), torch.enable_grad():
        leaves = loss.leaves()
        outputs = loss.outputs(leaves)
        F = _stacked(outputs)
        generator = torch.Generator("cpu").manual_seed(0)
        u = torch.randn(F.shape, generator=generator, device="cpu").to(F).requires_grad_()
        pulled = gradient(F @ u, leaves, create_graph=True)
        curve = _loss_curvature(loss, outputs)

    def product(v: Vector) -> Vector:
        with exact_arithmetic(loss.device), torch.enable_grad():
            (jv,) = torch.autograd.grad(dot(pulled, v), u, retain_graph=True)
            return gradient(F @ curve(jv), leaves, retain_graph=True)

    return product


def residual_map(loss: BatchLoss) -> Product:
    """v -> H_r v with H_r = sum_k (dL/dF_k) d2F_k/dw2: the second derivative along v of c'F(w), where c = dL/dF is held
    fixed. Shares nothing with H v - G v."""
    with exact_arithmetic(loss.device), torch.enable_grad():
        leaves = loss.leaves()
        outputs = loss.outputs(leaves)
        pulled = gradient(_stacked(outputs) @ _slope(loss, _released(outputs)), leaves, create_graph=True)

    def product(v: Vector) -> Vector:
        with exact_arithmetic(loss.device), torch.enable_grad():
            return gradient(dot(pulled, v), leaves, retain_graph=True)

    return product


@additive
def hessian_product(loss: BatchLoss, v: Vector) -> HessianProduct:
    """H v and v'Hv."""
    product = hessian_map(loss)(v)
    return HessianProduct(product, dot(product, v, loss.stacked))


@additive
def gauss_newton(loss: BatchLoss, v: Vector) -> Tensor:
    """v'Gv, a 0-d tensor."""
    return dot(gauss_newton_map(loss)(v), v, loss.stacked)


@additive
def residual(loss: BatchLoss, v: Vector) -> Tensor:
    """v'H_r v, a 0-d tensor."""
    return dot(residual_map(loss)(v), v, loss.stacked)


def split_by_double_backward(loss: Loss, v: Vector) -> Split:
    """v'Hv, v'Gv and v'H_r v, each by a computation of its own: that they add up is a test, not a definition."""
    return Split(hessian_product(loss, v).gHg, gauss_newton(loss, v), residual(loss, v))


def _tensors(outputs: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def _stacked(outputs: Any) -> Tensor:
    """All outputs of the network, or networks, as one vector F."""
    return torch.cat([tensor.flatten() for tensor in _tensors(outputs)])


def _released(outputs: Any) -> Any:
    """The same outputs as leaves of a new graph: for derivatives of the loss in F."""
    return tree_map(lambda t: t.detach().requires_grad_() if _tensors(t) else t, outputs)


def _slope(loss: BatchLoss, free: Any, create_graph: bool = False) -> Tensor:
    """dL/dF at outputs that are leaves."""
    slopes = torch.autograd.grad(
        loss.of_outputs(tree_map(lambda t: t.clone() if _tensors(t) else t, free)).sum(),  # it may write to them
        _tensors(free),
        create_graph=create_graph,
        allow_unused=True,
        materialize_grads=True,
    )
    return _stacked(slopes)


def _loss_curvature(loss: BatchLoss, outputs: Any) -> Callable[[Tensor], Tensor]:
    """u -> [d2L/dF2] u at the given outputs."""
    free = _released(outputs)
    slope = _slope(loss, free, create_graph=True)

    def curve(u: Tensor) -> Tensor:
        if not slope.requires_grad:  # a loss that is linear in the outputs
            return torch.zeros_like(u)
        curved = torch.autograd.grad(
            slope @ u, _tensors(free), retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return _stacked(curved)

    return curve
