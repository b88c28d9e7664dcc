import pytest
import torch

from runner.dataset.gaussian import gaussian
from runner.errors import BadInput


def test_unit_norm_and_labels() -> None:
    data = gaussian(dim=40, size=500)
    assert data.train.inputs.shape == (500, 40)
    assert data.train.inputs.dtype == torch.float32
    torch.testing.assert_close(data.train.inputs.norm(dim=1), torch.ones(500))
    assert data.train.labels.dtype == torch.int64
    assert set(data.train.labels.tolist()) == {0, 1}
    assert 200 < data.train.labels.sum() < 300
    assert data.label_values == (0.0, 1.0)
    assert data.classes == 2
    assert data.test is None
    assert data.mean is None


def test_directions_are_uniform_on_the_sphere() -> None:
    """E x = 0 and E x x' = I / dim."""
    inputs = gaussian(dim=4, size=20_000).train.inputs
    torch.testing.assert_close(inputs.mean(0), torch.zeros(4), atol=0.02, rtol=0)
    torch.testing.assert_close(inputs.T @ inputs / len(inputs), torch.eye(4) / 4, atol=0.01, rtol=0)


def test_a_function_of_the_seed() -> None:
    one, again, other = (gaussian(dim=5, size=20, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(one.train.inputs, again.train.inputs)
    assert torch.equal(one.train.labels, again.train.labels)
    assert not torch.equal(one.train.inputs, other.train.inputs)


def test_a_test_set_leaves_the_training_set_as_it_is() -> None:
    without, data = gaussian(dim=5, size=20), gaussian(dim=5, size=20, test_size=30)
    assert torch.equal(data.train.inputs, without.train.inputs)
    assert data.test is not None
    assert data.test.inputs.shape == (30, 5)
    assert not torch.equal(data.test.inputs[:20], data.train.inputs)


def test_label_values() -> None:
    assert gaussian(dim=3, labels=[-1, 1]).label_values == (-1.0, 1.0)


@pytest.mark.parametrize(
    ("key", "value"),
    [("dim", 0), ("size", 0), ("test_size", -1), ("labels", [0.0]), ("labels", [1.0, 1.0])],
)
def test_refuses(key: str, value: object) -> None:
    with pytest.raises(BadInput, match=f"dataset.{key} should"):
        gaussian(**{"dim": 3, key: value})  # type: ignore[arg-type]
