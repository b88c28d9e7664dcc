"""Normalisation layers by name, for features (N, C) and images (N, C, H, W)."""

from typing import Literal

from torch import nn

from runner.errors import BadInput

Norm = Literal["none", "batch", "layer", "group"]
_BATCH = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d}


def norm_layers(kind: Norm, channels: int, dims: Literal[1, 2]) -> list[nn.Module]:
    """What follows a layer with `channels` outputs: one normalisation, or nothing. `dims`: 1 features, 2
    images.

    `layer` is a group norm with a single group: over all features of a sample, or all its channels and
    pixels.
    """
    match kind:
        case "none":
            return []
        case "batch":
            return [_BATCH[dims](channels)]
        case "layer":
            return [nn.GroupNorm(1, channels)]
        case "group":
            return [nn.GroupNorm(groups(channels), channels)]
        case _:
            raise BadInput(f"arch.norm should be one of none, batch, layer, group, found {kind}.")


def groups(channels: int) -> int:
    """The most groups that divide the channels, at most 32 (Wu and He, "Group Normalization") and of at least
    8 channels.

    Groups of a single feature would normalise it to 0.
    """
    return max(g for g in range(1, 33) if g == 1 or (channels % g == 0 and channels >= 8 * g))
