"""Where a data set lives during training."""

from dataclasses import replace

import torch

from runner.dataset.base import Dataset, Split


def place(dataset: Dataset, device: torch.device) -> Dataset:
    """The data set with its tensors on `device` where they fit, else pinned on the host.

    What is there already is not copied: several users of one device share what `place` returned.
    """
    test = dataset.test
    return replace(dataset, train=_place(dataset.train, device), test=test and _place(test, device))


def _place(split: Split, device: torch.device) -> Split:
    if device.type == "cuda" and not split.inputs.is_cuda and split.inputs.nbytes > _room(device):
        return Split(split.inputs.pin_memory(), split.labels.pin_memory())
    return Split(split.inputs.to(device), split.labels.to(device))


def _room(device: torch.device) -> int:
    """Bytes that data may take: half of what is free, the rest is for the network and its activations."""
    return torch.cuda.mem_get_info(device)[0] // 2
