"""Points on the unit sphere with random binary labels."""

import numpy as np
import torch

from runner.dataset.base import Dataset, Split
from runner.dataset.checks import at_least
from runner.errors import BadInput
from runner.seeds import derived


def gaussian(
    *, dim: int, size: int = 1000, test_size: int = 0, labels: list[float] | None = None, seed: int = 0
) -> Dataset:
    """`size` Gaussian inputs (size, dim), float32, each normalised to unit norm, with fair coins as labels.

    `labels`: the two numbers that a single output is fitted to, by default 0 and 1. `test_size`: as many
    further samples as test set; 0: none.
    """
    at_least(1, dim=dim, size=size)
    at_least(0, test_size=test_size)
    values = [0.0, 1.0] if labels is None else labels
    if len(values) != 2 or values[0] == values[1]:
        raise BadInput(f"dataset.labels should be two different numbers, found {values}.")
    return Dataset(
        train=_draw(size, dim, derived(seed, "gaussian")),
        test=_draw(test_size, dim, derived(seed, "gaussian", "test")) if test_size else None,
        classes=2,
        label_values=(float(values[0]), float(values[1])),
    )


def _draw(size: int, dim: int, seed: int) -> Split:
    rng = np.random.default_rng(seed)
    inputs = rng.standard_normal((size, dim))
    inputs /= np.linalg.norm(inputs, axis=1, keepdims=True)
    return Split(torch.from_numpy(inputs.astype(np.float32)), torch.from_numpy(rng.integers(0, 2, size)))
