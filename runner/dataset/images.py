"""What all image sets have in common."""

from pathlib import Path

import torch
from torch import Tensor

from runner.dataset.base import Dataset, Split
from runner.dataset.subset import subset
from runner.errors import BadInput
from runner.seeds import derived

CROP_PADDING = 4
_CHUNK = 500  # images whose copy fits a processor's cache


def labelled(images: Tensor, labels: Tensor, classes: int, path: Path) -> Split:
    """Images (N, C, H, W), uint8, and their labels (N,), int64, as read from `path`.

    Raises BadInput where there is not one label for each image, or a label outside of 0 ... classes - 1.
    """
    if len(images) != len(labels) or len(labels) == 0:
        raise BadInput(f"{path} should hold a label for each image, found {len(images)} images, {len(labels)} labels.")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise BadInput(f"{path} should hold labels from 0 to {classes - 1}, found labels from {low} to {high}.")
    return Split(images, labels)


def image_dataset(
    train: Split,
    test: Split,
    *,
    classes: int,
    train_size: int | None,
    test_size: int | None,
    seed: int,
    augment: bool = False,
    levels: Tensor | None = None,
) -> Dataset:
    """The data set of two splits, or balanced subsets of them, with the training images' own statistics.

    `levels`: what `count_levels` says of all of `train`, where that is known already.
    """
    chosen = subset(train, train_size, key="dataset.train_size", seed=derived(seed, "train subset"))
    test = subset(test, test_size, key="dataset.test_size", seed=derived(seed, "test subset"))
    mean, std = statistics(count_levels(chosen.inputs) if levels is None or chosen is not train else levels)
    return Dataset(chosen, test, classes, mean=mean, std=std, crop_padding=CROP_PADDING if augment else None)


def count_levels(images: Tensor) -> Tensor:
    """How many pixels of each channel have each of the 256 levels: (C, 256), int64, for uint8 images
    (N, C, H, W)."""
    channels = images.shape[1]
    counts = torch.zeros(channels, 256, dtype=torch.int64)
    for start in range(0, len(images), _CHUNK):
        for channel in range(channels):
            pixels = images[start : start + _CHUNK, channel].flatten()
            counts[channel] += torch.bincount(pixels, minlength=256)
    return counts


def statistics(levels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (over N) of each channel in units of [0, 1], two float64 tensors (C,), from
    the counts (C, 256)."""
    shares = levels.double() / levels.sum(1, keepdim=True)
    values = torch.arange(256, dtype=torch.float64) / 255
    mean = (shares * values).sum(1)
    std = (shares * (values - mean[:, None]).square()).sum(1).sqrt()
    return mean, torch.where(std > 0, std, 1.0)  # a channel of one level becomes 0, not 0 / 0
