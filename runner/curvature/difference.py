"""The main paper's finite-difference estimate (Convex Behavior, Eq. 2-3), and other readings of its lost equation."""

from typing import Literal

from torch import Tensor

from runner.curvature.exact import HessianProduct
from runner.curvature.streamed import Loss
from runner.curvature.vectors import Vector, combine, dot

Form = Literal["gradient", "loss", "next_batch"]


def gradient_difference(
    loss: Loss, v: Vector, step: float, *, at_w: Vector | None = None, other: Loss | None = None
) -> HessianProduct:
    """H v ~ [grad L_B(w) - grad L_B'(w - mu v)] / mu with mu = `step`, in units of v: v is not normalised.

    B' = B unless `other` gives another batch. `at_w`: grad L_B(w), where it is known already.
    """
    here = loss.gradient() if at_w is None else at_w
    there = (other or loss).gradient(combine(loss.weights, -step, v))
    product = {name: (here[name] - there[name]) / step for name in here}
    return HessianProduct(product, dot(product, v, loss.stacked))


def loss_difference(loss: Loss, v: Vector, step: float, *, at_w: Vector | None = None) -> Tensor:
    """v'Hv ~ 2 [L(w - mu v) - L(w) + mu g'v] / mu^2 with mu = `step`, 0-d, from losses alone once g is known."""
    g = loss.gradient() if at_w is None else at_w
    rise = loss(combine(loss.weights, -step, v)) - loss(loss.weights)
    return 2 * (rise + step * dot(g, v, loss.stacked)) / step**2
