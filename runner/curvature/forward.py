"""The exact split along a direction in one forward sweep that carries three Taylor coefficients through the network."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import register_dataclass, tree_leaves, tree_map
from torch.utils.flop_counter import FlopCounterMode

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
    the same where the network treats each sample alone (see `mixes_samples`); only the outputs of all are kept, so the
    loss is that of the whole batch, whatever it is.
    """
    parts = [loss.expand(v, compiled=compiled, inputs=part) for part in _parts(loss, chunk)]
    whole = parts[0] if len(parts) == 1 else tree_map(lambda *leaves: torch.cat(leaves, int(loss.stacked)), *parts)
    return Split(*loss.split_terms(*whole))


def _parts(loss: BatchLoss, chunk: int | None) -> Iterator[Any]:
    """The inputs, or micro-batches of them."""
    if chunk is None:
        yield loss.inputs
        return
    for start in range(0, _samples(loss), chunk):
        here = (*[slice(None)] * loss.samples_dim, slice(start, start + chunk))
        yield tree_map(lambda leaf, here=here: leaf[here], loss.inputs)


# Compiling takes 7 to 21 s, and gains about a third of a training step for each sweep of a network with normalisation
# layers, next to nothing for others: in forward passes' work this is where it has paid for itself on two CPU cores.
PAYS_FROM_FLOPS = 2e12


def compiling_pays(loss: BatchLoss, samples: int, measurements: int) -> bool:
    """Whether compiled rules gain more than compiling costs, over so many sweeps of batches of so many samples. By
    counting, not by timing, so that a config means the same bytes everywhere. `loss`: of a few samples."""
    norms = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
    if not any(isinstance(module, norms) for module in loss.model.modules()):
        return False
    return _forward_flops(loss, samples) * measurements > PAYS_FROM_FLOPS


# Thirds of a batch, in turn, hold a third as much and take no longer on a CPU, whose caches they fit better,
# unless the network is so small that the number of calls counts. An accelerator is kept busy by full batches.
THIRDS_FROM_FLOPS = 1e9


def fitting_chunk(loss: BatchLoss, samples: int) -> int | None:
    """Samples to sweep at a time where the choice is free: a third of them, or None = all. `loss`: of a few samples."""
    free = loss.device.type == "cpu" and _samples(loss) > 1 and _forward_flops(loss, samples) > THIRDS_FROM_FLOPS
    return math.ceil(samples / 3) if free and not mixes_samples(loss) else None


@torch.no_grad()
def _forward_flops(loss: BatchLoss, samples: int) -> float:
    with FlopCounterMode(display=False) as counter:
        loss.outputs(loss.weights)
    return counter.get_total_flops() / _samples(loss) * samples


def _samples(loss: BatchLoss) -> int:
    return int(tree_leaves(loss.inputs)[0].shape[loss.samples_dim])


def layer_of(parameter: str) -> str:
    """The module that a parameter belongs to: `stages.0.conv1.weight` -> `stages.0.conv1`."""
    return parameter.rpartition(".")[0] or parameter


def mixes_samples(loss: BatchLoss) -> bool:
    """Whether a sample's output depends on the rest of its batch: batch statistics, or draws made for the batch as a
    whole (dropout). Known of batch norm and of whatever draws, else found by trying, also away from the weights: where
    a last layer is zero, the outputs say nothing of the others."""
    if any(map(_has_batch_statistics, loss.model.modules())) or loss.draws_numbers():
        return True
    return _mix(loss, loss.weights) or _mix(loss, _shaken(loss.weights))


def _has_batch_statistics(module: nn.Module) -> bool:
    norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
    return norm and (module.training or module.running_mean is None)


def _shaken(weights: Vector) -> Vector:
    """Random weights about these, of the size that keeps signals alive. The generators stay as they are."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: w + torch.randn(w.shape, generator=generator).to(w) * (w[0].numel() ** -0.5 if w.dim() > 1 else 0.1)
        for name, w in weights.items()
    }


@torch.no_grad()
def _mix(loss: BatchLoss, weights: Vector) -> bool:
    """Whether the outputs of the batch at once are others than those of its samples in two parts."""
    half = max(1, _samples(loss) // 2)
    try:
        parts = [loss.outputs(weights, part) for part in _parts(loss, half)]
    except ValueError:  # a normalisation that cannot take one sample alone
        return True
    whole = loss.outputs(weights)
    if any(leaf.dim() == 0 for leaf in tree_leaves(whole)):  # of no sample
        return True
    joined = tree_map(lambda *leaves: torch.cat(leaves), *parts)
    pairs = zip(tree_leaves(whole), tree_leaves(joined), strict=True)
    return not all(
        torch.allclose(one, other, rtol=1e-3, atol=1e-4 * float(one.abs().max()), equal_nan=True)
        for one, other in pairs
    )
