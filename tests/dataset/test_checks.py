"""Data sets of a user's own: what is none is refused in one sentence."""

from typing import Any

import pytest
import torch

from runner.dataset.base import Dataset, Split
from runner.dataset.checks import check_dataset
from runner.errors import BadInput

GOOD = Split(torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64))
BAD: dict[str, tuple[Any, str]] = {
    "tuple": ((GOOD, GOOD), "should return a runner.dataset.base.Dataset, found an object of the class tuple"),
    "no split": (Dataset((torch.zeros(4, 2), torch.zeros(4)), None, 2), "train should be a Split .* class tuple"),
    "floats": (
        Dataset(Split(torch.zeros(4, 2), torch.zeros(4)), None, 2),
        r"labels of train .* torch.float32 of \(4,\)",
    ),
    "one-hot": (Dataset(GOOD, Split(torch.zeros(4, 2), torch.zeros(4, 2).long()), 2), r"labels of test .* of \(4, 2\)"),
    "lengths": (Dataset(Split(torch.zeros(3, 2), GOOD.labels), None, 2), "found 3 inputs and 4 labels"),
    "labels": (
        Dataset(Split(torch.zeros(2, 2), torch.tensor([0, 2])), None, 2),
        "labels of train should be in 0 … 1, found 0 … 2",
    ),
    "test labels": (
        Dataset(GOOD, Split(torch.zeros(2, 2), torch.tensor([-1, 1])), 2),
        "labels of test should be in 0 … 1, found -1 … 1",
    ),
    "test shape": (Dataset(GOOD, Split(torch.zeros(4, 3), GOOD.labels), 2), r"those of train, \(2,\), found \(3,\)"),
    "none": (Dataset(Split(torch.zeros(0, 2), GOOD.labels[:0]), None, 2), "found 0 inputs and 0 labels"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_data_set(name: str) -> None:
    found, words = BAD[name]
    with pytest.raises(BadInput, match=f"^dataset: .*{words}"):
        check_dataset(found)


@pytest.mark.parametrize("test", [None, GOOD])
def test_what_is_one(test: Split | None) -> None:
    data = Dataset(GOOD, test, 2)
    assert check_dataset(data) is data
