"""What a data set is to the rest of the program: labelled tensors on the host."""

import hashlib
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Split:
    """Labelled samples: `inputs` (N, ...), uint8 images (N, C, H, W) or floats; `labels` (N,), int64 class
    indices."""

    inputs: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def fingerprint(self) -> str:
        """16 hex digits of the SHA-256 of the labels and of about a thousand samples, evenly spaced: what is read of
        millions takes no time."""
        found = hashlib.sha256(self.labels.contiguous().numpy().data)
        found.update(self.inputs[:: -(-len(self) // 1000)].contiguous().numpy().data)
        return found.hexdigest()[:16]


@dataclass(frozen=True)
class Dataset:
    """A data set in memory, or mapped into it.

    `label_values` are the two real numbers that a single output is fitted to when the labels are binary and a
    real-valued loss is used (gaussian: 0 and 1); None where labels are classes only.
    `mean`, `std` (C,) are the per-channel statistics of the training images in units of [0, 1]:
    (x / 255 - mean) / std is what the network sees. None: the inputs are used as they are.
    `crop_padding`: padding in pixels of the random crop, with which goes a random horizontal flip; None: no
    augmentation.
    """

    train: Split
    test: Split | None
    classes: int
    label_values: tuple[float, float] | None = None
    mean: Tensor | None = None
    std: Tensor | None = None
    crop_padding: int | None = None
