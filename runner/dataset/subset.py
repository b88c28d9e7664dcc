"""Class-balanced subsets."""

import numpy as np
import torch
from torch import Tensor

from runner.dataset.base import Split
from runner.errors import BadInput


def subset(split: Split, size: int | None, *, key: str, seed: int) -> Split:
    """`size` samples of `split` in their old order, drawn with `seed`, as balanced over the classes as can
    be; None: all of them.

    Of one seed, a smaller subset is part of a larger one. Raises BadInput, naming `key`, where `size` is
    below 1 or above what there is.
    """
    if size is None or size == len(split):
        return split
    if not 1 <= size <= len(split):
        raise BadInput(f"{key} should be from 1 to {len(split)}, the images there are, or null, found {size}.")
    chosen = balanced(split.labels, size, seed)
    return Split(split.inputs.index_select(0, chosen), split.labels[chosen])


def balanced(labels: Tensor, size: int, seed: int) -> Tensor:
    """Sorted indices (size,) into `labels` (N,).

    Every sample gets its place in a random queue of its class, and the queues are served in turns, in a
    random order of the classes: no class is ahead by more than one unless another has run out.
    """
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(labels))
    classes = labels.numpy()[shuffled]
    by_class = np.argsort(classes, kind="stable")
    counts = np.bincount(classes)
    place = np.empty(len(labels), dtype=np.int64)
    place[by_class] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    turn = rng.permutation(len(counts))[classes]
    served = np.lexsort((turn, place))
    return torch.from_numpy(np.sort(shuffled[served[:size]]))
