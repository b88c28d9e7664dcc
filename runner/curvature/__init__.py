"""Curvature of the loss of any network along any direction, for notebooks and for the probes.

None of these functions changes the model: parameters, buffers, gradients, modes and random generators stay bit for bit.
The loss has to be a function of the weights: the network may draw random numbers by torch's global generators, which
every evaluation finds where they stand now; loss_fn draws none. A forward pass on copies looks whether it is.
"""

import math
from typing import Any, Literal

import torch
from torch import nn

from runner.curvature import difference, exact, forward, purity, randomness
from runner.curvature.batch_loss import BatchLoss, LossFunction
from runner.curvature.exact import HessianProduct
from runner.curvature.forward import Split
from runner.curvature.taylor import UnsupportedOperation
from runner.curvature.vectors import Direction, Vector, as_vector

__all__ = ["HessianProduct", "Split", "UnsupportedOperation", "finite_difference", "hvp", "split"]


def _problem(
    model: nn.Module,
    loss_fn: LossFunction,
    inputs: Any,
    targets: Any,
    direction: Direction | None,
    dtype: torch.dtype | None,
) -> tuple[BatchLoss, Vector]:
    if torch.is_inference_mode_enabled():
        raise RuntimeError(
            "curvature should be measured outside of torch.inference_mode, in which there are no gradients"
        )
    loss = BatchLoss(model, loss_fn, inputs, targets, dtype)
    purity.check(loss)
    return loss, loss.gradient() if direction is None else as_vector(direction, loss.weights)


def split(
    model: nn.Module,
    loss_fn: LossFunction,
    inputs: Any,
    targets: Any,
    direction: Direction | None = None,
    *,
    dtype: torch.dtype | None = None,
    method: Literal["taylor", "double_backward"] = "taylor",
) -> Split:
    """v'Hv, v'Gv and v'H_r v of the mean loss of a batch, H = G + H_r, as 0-d tensors `gHg`, `gGg`, `gHrg`.

    G = J'[d2L/dF2]J is the generalised Gauss-Newton part, H_r = sum_k (dL/dF_k) d2F_k/dw2 the residual part, over the
    stacked outputs F of the batch. v is `direction` (a dict of parameter name to tensor, or a sequence in parameter
    order), by default the gradient g. Divide by v'v for curvatures in units of 1/length^2 in weight space.

    `loss_fn(outputs, targets)` returns the mean loss. `dtype`: that of the measurement, by default the parameters'.
    `method`: `taylor` is one forward sweep, about the time of 1.5 training steps, and raises UnsupportedOperation for
    networks that do something it has no rule for; `double_backward` takes any network, 5 to 9 steps, and a training
    step's memory two to three times.
    """
    if method not in ("taylor", "double_backward"):
        raise ValueError(f"method should be taylor or double_backward, found {method!r}")
    with randomness.only_of_torch():
        loss, v = _problem(model, loss_fn, inputs, targets, direction, dtype)
        return forward.split(loss, v) if method == "taylor" else exact.split_by_double_backward(loss, v)


def hvp(
    model: nn.Module,
    loss_fn: LossFunction,
    inputs: Any,
    targets: Any,
    direction: Direction | None = None,
    *,
    dtype: torch.dtype | None = None,
) -> HessianProduct:
    """`product` = H v as a dict of parameter name to tensor, and `gHg` = v'Hv, exactly. Arguments as for `split`."""
    with randomness.only_of_torch():
        return exact.hessian_product(*_problem(model, loss_fn, inputs, targets, direction, dtype))


def finite_difference(
    model: nn.Module,
    loss_fn: LossFunction,
    inputs: Any,
    targets: Any,
    direction: Direction | None = None,
    *,
    step: float,
    dtype: torch.dtype | None = None,
) -> HessianProduct:
    """`product` ~ H v = [grad L(w) - grad L(w - mu v)] / mu and `gHg` = v'(H v), with mu = `step` > 0 in units of v.

    Convex Behavior, Eq. 2-3, where v = g and mu is the learning rate. Arguments as for `split`.
    """
    if not 0 < step < math.inf:
        raise ValueError(f"step should be positive and finite, found {step}")
    with randomness.only_of_torch():
        return difference.gradient_difference(*_problem(model, loss_fn, inputs, targets, direction, dtype), step)
