"""H, G and H_r of a small network as matrices, exact through every layer that autograd can differentiate twice."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from runner.curvature.batch_loss import BatchLoss
from runner.curvature.exact import Product, gauss_newton_map, hessian_map
from runner.curvature.operator import Matrix
from runner.curvature.streamed import Loss, additive
from runner.curvature.vectors import flatten, unflatten


def matrices(loss: Loss, which: Sequence[Matrix]) -> dict[Matrix, Tensor]:
    """Each (n, n), or (R, n, n) of networks side by side, in the order of the parameters. H and G come from products
    with unit vectors, n backward passes each; H_r = H - G."""
    found: dict[Matrix, Tensor] = {}
    if "H" in which or "H_r" in which:
        found["H"] = _hessian(loss)
    if "G" in which or "H_r" in which:
        found["G"] = _gauss_newton(loss)
    if "H_r" in which:
        found["H_r"] = found["H"] - found["G"]
    return {matrix: found[matrix] for matrix in which}


@additive
def _hessian(loss: BatchLoss) -> Tensor:
    return _columns(loss, hessian_map)


@additive
def _gauss_newton(loss: BatchLoss) -> Tensor:
    return _columns(loss, gauss_newton_map)


def _columns(loss: BatchLoss, product_of: Callable[[BatchLoss], Product]) -> Tensor:
    """M e_j for every j, made symmetric: rounding is not."""
    product = product_of(loss)
    zero = torch.zeros_like(flatten(loss.weights, loss.stacked))
    columns = []
    for j in range(zero.shape[-1]):
        unit = zero.clone()
        unit[..., j] = 1
        columns.append(flatten(product(unflatten(unit, loss.weights, loss.stacked)), loss.stacked))
    found = torch.stack(columns, -1)
    return (found + found.mT) / 2
