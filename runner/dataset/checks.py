"""Checks that several data sets share, and of one that somebody else has made."""

from typing import Any

import torch

from runner.dataset.base import Dataset
from runner.errors import BadInput


def at_least(least: int, **sizes: int) -> None:
    """Refuses those of a data set's integer keys that are below `least`."""
    for key, found in sizes.items():
        if found < least:
            raise BadInput(f"dataset.{key} should be at least {least}, found {found}.")


def check_dataset(found: Any) -> Dataset:
    """What the function of a data set returns. Raises BadInput for what is none."""
    if not isinstance(found, Dataset):
        raise BadInput(f"dataset: its function should return a runner.dataset.base.Dataset, found {_kind(found)}")
    check_split("train", found.train, found.classes)
    if found.test is not None:
        check_split("test", found.test, found.classes)
        train, test = tuple(found.train.inputs.shape[1:]), tuple(found.test.inputs.shape[1:])
        if train != test:
            raise BadInput(f"dataset: inputs of test should have the shape of those of train, {train}, found {test}")
    return found


def check_split(name: str, split: Any, classes: int) -> None:
    inputs, labels = getattr(split, "inputs", None), getattr(split, "labels", None)
    if not isinstance(inputs, torch.Tensor) or not isinstance(labels, torch.Tensor):
        raise BadInput(f"dataset: {name} should be a Split of two tensors, inputs and labels, found {_kind(split)}")
    if labels.dtype != torch.int64 or labels.dim() != 1:
        raise BadInput(
            f"dataset: labels of {name} should be class indices, int64 of the shape (N,), found {labels.dtype} of "
            f"{tuple(labels.shape)}"
        )
    if len(inputs) != len(labels) or not len(labels):
        raise BadInput(
            f"dataset: {name} should have a label for each of its inputs, found {len(inputs)} inputs and "
            f"{len(labels)} labels"
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise BadInput(
            f"dataset: labels of {name} should be in 0 … {classes - 1}, found {int(labels.min())} … {int(labels.max())}"
        )


def _kind(found: Any) -> str:
    return f"an object of the class {type(found).__name__}"
