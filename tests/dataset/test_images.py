from pathlib import Path

import pytest
import torch

from runner.dataset.base import Split
from runner.dataset.images import count_levels, image_dataset, labelled, statistics
from runner.errors import BadInput


def random_split(size: int, classes: int = 4, seed: int = 0) -> Split:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (size, 3, 5, 6), dtype=torch.uint8, generator=generator)
    images[:, 1] //= 3  # so that the channels differ
    return Split(images, torch.arange(size) % classes)


def test_statistics_are_those_of_the_pixels() -> None:
    images = random_split(1203).inputs  # more than one chunk, and a short last one
    mean, std = statistics(count_levels(images))
    values = images.double() / 255
    torch.testing.assert_close(mean, values.mean((0, 2, 3)), rtol=1e-12, atol=0)
    torch.testing.assert_close(std, values.std((0, 2, 3), unbiased=False), rtol=1e-12, atol=0)


def test_a_channel_of_one_level_does_not_divide_by_zero() -> None:
    mean, std = statistics(count_levels(torch.full((3, 1, 2, 2), 51, dtype=torch.uint8)))
    assert mean.tolist() == [pytest.approx(0.2)]
    assert std.tolist() == [1.0]


def test_statistics_are_those_of_the_training_images_used() -> None:
    train, test = random_split(100), random_split(30, seed=1)
    sizes = {"classes": 4, "train_size": 20, "test_size": 8, "seed": 0}
    data = image_dataset(train, test, **sizes, levels=count_levels(train.inputs))  # type: ignore[arg-type]
    expected = data.train.inputs.double().div(255).mean((0, 2, 3))
    assert data.mean is not None
    torch.testing.assert_close(data.mean, expected)
    assert data.train.labels.bincount().tolist() == [5] * 4
    assert data.test is not None
    assert data.test.labels.bincount().tolist() == [2] * 4
    assert data.crop_padding is None


def test_known_levels_are_used_for_the_whole() -> None:
    train, test = random_split(100), random_split(30, seed=1)
    for augment, padding in ((True, 4), (False, None)):
        data = image_dataset(
            train,
            test,
            classes=4,
            train_size=None,
            test_size=None,
            seed=0,
            augment=augment,
            levels=count_levels(test.inputs),
        )
        assert data.mean is not None
        assert torch.equal(data.mean, statistics(count_levels(test.inputs))[0])
        assert data.crop_padding == padding


@pytest.mark.parametrize(
    ("labels", "message"),
    [([0, 1, 2], "labels from 0 to 1, found labels from 0 to 2"), ([0, -1, 1], "from -1"), ([0], "3 images, 1 labels")],
)
def test_labels_must_fit(labels: list[int], message: str) -> None:
    with pytest.raises(BadInput, match=f"some/file .*{message}"):
        labelled(random_split(3).inputs, torch.tensor(labels), 2, Path("some/file"))
