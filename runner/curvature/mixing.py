"""Do the samples of a batch meet in the network?"""

import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from runner.curvature.batch_loss import BatchLoss
from runner.curvature.vectors import Vector


def mixes_samples(loss: BatchLoss) -> bool:
    """Whether a sample's output depends on the rest of its batch: batch statistics, or draws made for the batch as a
    whole (dropout). Known of batch norm and of whatever draws, else found by trying, also away from the weights: where
    a last layer is zero, the outputs say nothing of the others."""
    if any(map(_has_batch_statistics, loss.model.modules())) or loss.draws_numbers():
        return True
    half = max(1, loss.samples // 2)
    return chunks_differ(loss, half) or chunks_differ(loss, half, _shaken(loss.weights))


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
def chunks_differ(loss: BatchLoss, size: int, weights: Vector | None = None) -> bool:
    """Whether the outputs of the batch at once are others than those of so many samples at a time; at the model's
    weights or at the given ones."""
    weights = loss.weights if weights is None else weights
    try:
        parts = [loss.outputs(weights, part) for part in loss.chunks(size)]
    except ValueError:  # a normalisation that cannot take one sample alone
        return True
    whole = loss.outputs(weights)
    if any(leaf.dim() == 0 for leaf in tree_leaves(whole)):  # of no sample
        return True
    joined = tree_map(lambda *leaves: torch.cat(leaves, int(loss.stacked)), *parts)
    pairs = zip(tree_leaves(whole), tree_leaves(joined), strict=True)
    return not all(
        torch.allclose(one, other, rtol=1e-3, atol=1e-4 * float(one.nan_to_num().abs().max()), equal_nan=True)
        for one, other in pairs
    )
