import pytest
import torch

from runner.dataset.blobs import blobs
from runner.errors import BadInput


def test_balanced_points_around_their_centres() -> None:
    centres = [[2.0, 0.0, 1.0], [-1.0, 3.0, 0.0], [0.0, 0.0, -5.0]]
    train = blobs(size=9_001, centres=centres, std=0.5).train
    assert train.inputs.shape == (9_001, 3)
    assert train.inputs.dtype == torch.float32
    assert train.labels.bincount().tolist() == [3_001, 3_000, 3_000]
    for label, centre in enumerate(centres):
        points = train.inputs[train.labels == label]
        torch.testing.assert_close(points.mean(0), torch.tensor(centre), atol=0.05, rtol=0)
        torch.testing.assert_close(points.std(0), torch.full((3,), 0.5), atol=0.03, rtol=0)


def test_defaults_are_those_of_the_paper() -> None:
    data = blobs(std=0.0)
    assert data.train.inputs.unique(dim=0).tolist() == [[-1.0, -1.0], [1.0, 1.0]]
    assert (len(data.train), data.classes, data.label_values, data.test) == (100, 2, None, None)


def test_a_function_of_the_seed() -> None:
    one, again, other = (blobs(seed=seed, test_size=10) for seed in (3, 3, 4))
    assert torch.equal(one.train.inputs, again.train.inputs)
    assert not torch.equal(one.train.inputs, other.train.inputs)
    assert one.test is not None
    assert not torch.equal(one.test.inputs, one.train.inputs[:10])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("size", 1),
        ("std", -1.0),
        ("std", float("nan")),
        ("centres", [[1.0, 1.0]]),
        ("centres", [[1.0], [1.0, 2.0]]),
        ("centres", [[], []]),
    ],
)
def test_refuses(key: str, value: object) -> None:
    with pytest.raises(BadInput, match=f"dataset.{key} should"):
        blobs(**{key: value})  # type: ignore[arg-type]
