"""Images of noise in the form of CIFAR-100, augmented as it is, so that loops can be timed without the files."""

import torch

from runner.dataset.base import Dataset, Split

PADDING, SIDE, CLASSES = 4, 32, 100
MEAN, STD = (0.507, 0.487, 0.441), (0.267, 0.256, 0.276)


def photographs(size: int = 5000, augment: bool = True, seed: int = 0) -> Dataset:
    """`size` uint8 images (3, 32, 32), with random labels."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randint(0, 256, (size, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, CLASSES, (size,), generator=generator)
    padding = PADDING if augment else None
    return Dataset(Split(inputs, labels), None, CLASSES, None, torch.tensor(MEAN), torch.tensor(STD), padding)
