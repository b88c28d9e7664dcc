"""Gaussian blobs, one for each class."""

import numpy as np
import torch

from runner.dataset.base import Dataset, Split
from runner.dataset.checks import at_least
from runner.errors import BadInput
from runner.seeds import derived


def blobs(
    *,
    size: int = 100,
    test_size: int = 0,
    centres: list[list[float]] | None = None,
    std: float = 0.3,
    seed: int = 0,
) -> Dataset:
    """`size` points (size, dim), float32, around `centres`, by default (1, 1) and (-1, -1), with standard
    deviation `std` in every direction.

    The label is the index of the centre; classes take turns, so they are balanced. `test_size`: as many
    further points as test set; 0: none.
    """
    points = [[1.0, 1.0], [-1.0, -1.0]] if centres is None else centres
    at_least(0, test_size=test_size)
    at_least(len(points), size=size)
    if len(points) < 2 or len({len(point) for point in points}) != 1 or not points[0]:
        raise BadInput(f"dataset.centres should be two or more points of one dimension, found {points}.")
    if not std >= 0:
        raise BadInput(f"dataset.std should be at least 0, found {std}.")
    return Dataset(
        train=_draw(size, points, std, derived(seed, "blobs")),
        test=_draw(test_size, points, std, derived(seed, "blobs", "test")) if test_size else None,
        classes=len(points),
    )


def _draw(size: int, centres: list[list[float]], std: float, seed: int) -> Split:
    means = np.array(centres, dtype=np.float64)
    labels = np.arange(size) % len(means)
    noise = np.random.default_rng(seed).standard_normal((size, means.shape[1]))
    inputs = means[labels] + std * noise
    return Split(torch.from_numpy(inputs.astype(np.float32)), torch.from_numpy(labels))
