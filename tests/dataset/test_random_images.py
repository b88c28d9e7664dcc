import pytest
import torch

from runner.dataset.random_images import random_images
from runner.errors import BadInput


def test_standard_normal_pixels_and_random_labels() -> None:
    data = random_images(size=2_000, shape=[3, 8, 9], classes=5)
    inputs, labels = data.train.inputs, data.train.labels
    assert inputs.shape == (2_000, 3, 8, 9)
    assert inputs.dtype == torch.float32
    torch.testing.assert_close(inputs.mean(), torch.tensor(0.0), atol=0.01, rtol=0)
    torch.testing.assert_close(inputs.std(), torch.tensor(1.0), atol=0.01, rtol=0)
    assert (labels.bincount(minlength=5) > 300).all()
    assert data.classes == 5
    assert data.mean is None
    assert data.test is None


def test_a_function_of_the_seed() -> None:
    one, again, other = (random_images(size=10, seed=seed, test_size=10) for seed in (3, 3, 4))
    assert one.train.inputs.shape == (10, 1, 28, 28)
    assert torch.equal(one.train.inputs, again.train.inputs)
    assert not torch.equal(one.train.inputs, other.train.inputs)
    assert one.test is not None
    assert not torch.equal(one.test.inputs, one.train.inputs)


@pytest.mark.parametrize(("key", "value"), [("size", 0), ("classes", 1), ("shape", [3, 8]), ("shape", [3, 0, 8])])
def test_refuses(key: str, value: object) -> None:
    with pytest.raises(BadInput, match=f"dataset.{key} should"):
        random_images(**{key: value})  # type: ignore[arg-type]
