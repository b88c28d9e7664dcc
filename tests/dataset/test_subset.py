import pytest
import torch

from runner.dataset.base import Split
from runner.dataset.subset import balanced, subset
from runner.errors import BadInput

LABELS = torch.arange(7).repeat_interleave(30)


def test_balanced_as_can_be() -> None:
    for size in range(1, len(LABELS) + 1):
        chosen = balanced(LABELS, size, seed=0)
        assert chosen.unique().tolist() == chosen.tolist()  # sorted, none twice
        assert len(chosen) == size
        counts = LABELS[chosen].bincount(minlength=7)
        assert counts.max() - counts.min() <= 1


def test_small_classes_are_used_up_and_the_others_share_the_rest() -> None:
    labels = torch.tensor([0] * 2 + [1] * 50 + [3] * 50)  # and none of class 2
    assert labels[balanced(labels, 22, seed=0)].bincount().tolist() == [2, 10, 0, 10]


def test_smaller_subsets_are_part_of_larger_ones_of_the_same_seed() -> None:
    small, large, other = balanced(LABELS, 20, 1), balanced(LABELS, 90, 1), balanced(LABELS, 20, 2)
    assert set(small.tolist()) <= set(large.tolist())
    assert not torch.equal(small, other)


def test_every_sample_is_as_likely() -> None:
    draws = torch.cat([balanced(LABELS, 10, seed) for seed in range(2_000)]).bincount(minlength=len(LABELS))
    assert draws.sum() == 20_000
    assert draws.min() > 40  # 95 expected, standard deviation below 10
    assert draws.max() < 150


def test_subset_keeps_inputs_and_labels_together() -> None:
    split = Split(torch.arange(len(LABELS)) * 10, LABELS)
    part = subset(split, 50, key="dataset.train_size", seed=0)
    assert torch.equal(LABELS[part.inputs // 10], part.labels)
    assert subset(split, None, key="dataset.train_size", seed=0) is split
    assert subset(split, len(LABELS), key="dataset.train_size", seed=0) is split


@pytest.mark.parametrize("size", [0, -3, len(LABELS) + 1])
def test_refuses_more_than_there_is_and_less_than_one(size: int) -> None:
    with pytest.raises(BadInput, match=f"dataset.test_size should be from 1 to 210, .* found {size}"):
        subset(Split(LABELS, LABELS), size, key="dataset.test_size", seed=0)
