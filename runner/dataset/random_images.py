"""Images of noise with random labels."""

import numpy as np
import torch

from runner.dataset.base import Dataset, Split
from runner.dataset.checks import at_least
from runner.errors import BadInput
from runner.seeds import derived


def random_images(
    *,
    size: int = 1000,
    test_size: int = 0,
    shape: list[int] | None = None,
    classes: int = 10,
    seed: int = 0,
) -> Dataset:
    """`size` images (size, *shape), float32, every pixel standard normal, with labels drawn uniformly from
    `classes`.

    `shape`: channels, height, width, by default that of MNIST. `test_size`: as many further images as test
    set; 0: none.
    """
    pixels = [1, 28, 28] if shape is None else shape
    at_least(1, size=size)
    at_least(0, test_size=test_size)
    at_least(2, classes=classes)
    if len(pixels) != 3 or min(pixels) < 1:
        raise BadInput(f"dataset.shape should be channels, height and width, each at least 1, found {pixels}.")
    return Dataset(
        train=_draw(size, pixels, classes, derived(seed, "random_images")),
        test=_draw(test_size, pixels, classes, derived(seed, "random_images", "test")) if test_size else None,
        classes=classes,
    )


def _draw(size: int, shape: list[int], classes: int, seed: int) -> Split:
    rng = np.random.default_rng(seed)
    inputs = rng.standard_normal((size, *shape), dtype=np.float32)
    return Split(torch.from_numpy(inputs), torch.from_numpy(rng.integers(0, classes, size)))
