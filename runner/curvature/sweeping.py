"""How a forward sweep of the split is best done: compiled or not, of how many samples at a time."""

import math

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from runner.curvature.batch_loss import BatchLoss
from runner.curvature.mixing import mixes_samples

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
    free = loss.device.type == "cpu" and loss.samples > 1 and _forward_flops(loss, samples) > THIRDS_FROM_FLOPS
    return math.ceil(samples / 3) if free and not mixes_samples(loss) else None


@torch.no_grad()
def _forward_flops(loss: BatchLoss, samples: int) -> float:
    with FlopCounterMode(display=False) as counter:
        loss.outputs(loss.weights)
    return counter.get_total_flops() / loss.samples * samples
