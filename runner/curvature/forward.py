"""The exact split along a direction in one forward sweep that carries three Taylor coefficients through the network."""

from dataclasses import dataclass

from torch import Tensor

from runner.curvature.batch_loss import BatchLoss
from runner.curvature.precision import exact_arithmetic
from runner.curvature.taylor import split_terms
from runner.curvature.vectors import Vector


@dataclass(frozen=True)
class Split:
    """v'Hv, v'Gv and v'H_r v, 0-d tensors (v is g unless chosen otherwise), with H = G + H_r."""

    gHg: Tensor
    gGg: Tensor
    gHrg: Tensor


def split(loss: BatchLoss, v: Vector, *, compiled: bool = False) -> Split:
    """With F(w + t v) = f0 + t f1 + t^2/2 f2 + …: v'Gv = f1'[d2L/dF2] f1 and v'H_r v = <dL/dF, f2>; v'Hv is their sum.

    Parameters that `v` leaves out do not move: v is zero there.
    """
    f0, f1, f2 = loss.expand(v, compiled=compiled)
    with exact_arithmetic(loss.device):
        return Split(*split_terms(loss.of_outputs, f0, f1, f2, loss.targets))
