"""The exact split along a direction in one forward sweep that carries three Taylor coefficients through the network."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._pytree import register_dataclass, tree_map

from runner.curvature.batch_loss import BatchLoss
from runner.curvature.streamed import additive
from runner.curvature.vectors import Vector


@dataclass(frozen=True)
class Split:
    """v'Hv, v'Gv and v'H_r v, 0-d tensors (v is g unless chosen otherwise), with H = G + H_r."""

    gHg: Tensor
    gGg: Tensor
    gHrg: Tensor


register_dataclass(Split)  # so that splits of parts of a loss can be added


@additive
def split(loss: BatchLoss, v: Vector, *, chunk: int | None = None, compiled: bool = False) -> Split:
    """With F(w + t v) = f0 + t f1 + t^2/2 f2 + …: v'Gv = f1'[d2L/dF2] f1 and v'H_r v = <dL/dF, f2>; v'Hv is their sum.

    Parameters that `v` leaves out do not move: v is zero there. `chunk`: so many samples are swept at a time, which is
    the same where the network treats each sample alone (see `mixing.mixes_samples`); only the outputs of all are kept,
    so the loss is that of the whole batch, whatever it is.
    """
    parts = [loss.expand(v, compiled=compiled, inputs=part) for part in loss.chunks(chunk)]
    whole = parts[0] if len(parts) == 1 else tree_map(lambda *leaves: torch.cat(leaves, int(loss.stacked)), *parts)
    return Split(*loss.split_terms(*whole))
