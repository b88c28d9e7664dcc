from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from runner.dataset.base import Dataset, Split
from runner.dataset.batches import Batch, Batches
from runner.dataset.gaussian import gaussian
from runner.errors import BadInput

CPU = torch.device("cpu")


def numbered(size: int, test: int = 0) -> Dataset:
    """Samples that say who they are."""
    inputs = torch.arange(size, dtype=torch.float32)[:, None]
    held = Split(-inputs[:test], torch.arange(test)) if test else None
    return Dataset(Split(inputs, torch.arange(size) % 2), held, 2)


def images(size: int, padding: int | None = 4, test: int = 0) -> Dataset:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (size + test, 3, 8, 8), dtype=torch.uint8, generator=generator)
    labels = torch.arange(size + test) % 5
    mean, std = torch.tensor([0.4, 0.5, 0.6], dtype=torch.float64), torch.tensor([0.2, 0.3, 0.25])
    held = Split(pixels[size:], labels[size:]) if test else None
    return Dataset(Split(pixels[:size], labels[:size]), held, 5, mean=mean, std=std, crop_padding=padding)


def make(
    data: Dataset, batch_size: int | None, seed: int = 0, dtype: torch.dtype = torch.float32, device: torch.device = CPU
) -> Batches:
    return Batches(data, batch_size=batch_size, seed=seed, device=device, dtype=dtype)


def who(batch: Batch) -> list[int]:
    return batch.inputs[:, 0].int().tolist()


def same(one: Batch, other: Batch) -> bool:
    return torch.equal(one.inputs, other.inputs) and torch.equal(one.labels, other.labels)


@pytest.mark.parametrize(("size", "batch_size", "lengths"), [(10, 3, [3, 3, 3, 1]), (10, 5, [5, 5]), (10, 10, [10])])
def test_an_epoch_is_a_permutation(size: int, batch_size: int, lengths: list[int]) -> None:
    """Every sample once, the short last batch kept, another order in every epoch and for every seed."""
    batches = make(numbered(size), batch_size)
    assert batches.steps_per_epoch == len(lengths)
    orders = []
    for epoch in range(3):
        steps = [batches(epoch * len(lengths) + i) for i in range(len(lengths))]
        assert [len(batch) for batch in steps] == lengths
        orders.append([i for batch in steps for i in who(batch)])
        assert sorted(orders[-1]) == list(range(size))
        assert all(batch.labels.tolist() == [i % 2 for i in who(batch)] for batch in steps)
    orders.append([i for step in range(len(lengths)) for i in who(make(numbered(size), batch_size, seed=1)(step))])
    assert len({tuple(order) for order in orders}) == 4


@pytest.mark.parametrize("batch_size", [7, None])
def test_a_pure_function_of_seed_and_step(batch_size: int | None) -> None:
    """Whatever was asked before, and also of what is drawn."""
    data = images(30)
    forward, backward = make(data, batch_size), make(data, batch_size)
    steps = range(12)
    there = [(forward(step), forward.heldout(step)) for step in steps]
    back = [(backward(step), backward.heldout(step)) for step in reversed(steps)][::-1]
    assert all(same(a, c) and same(b, d) for (a, b), (c, d) in zip(there, back, strict=True))


def test_full_batch_is_the_data_as_they_are() -> None:
    data = gaussian(dim=3, size=10)
    batches = make(data, None)
    assert batches.steps_per_epoch == 1
    assert torch.equal(batches(0).inputs, data.train.inputs)
    assert torch.equal(batches(0).labels, data.train.labels)
    assert batches(5).inputs is batches(0).inputs  # made once


def test_full_batch_with_augmentation_is_drawn_every_epoch() -> None:
    data = images(20)
    batches = make(data, None)
    assert torch.equal(batches(0).labels, data.train.labels)
    assert not torch.equal(batches(0).inputs, batches(1).inputs)


@pytest.mark.parametrize(("size", "batch_size"), [(10, 5), (10, 3), (11, 5), (11, 4), (9, 1), (20, 7)])
def test_heldout_is_disjoint_and_as_large(size: int, batch_size: int) -> None:
    batches = make(numbered(size), batch_size)
    batches.require_heldout("split")
    seen = set()
    for step in range(2 * batches.steps_per_epoch):
        batch, heldout = who(batches(step)), who(batches.heldout(step))
        assert len(heldout) == len(batch)
        assert not set(heldout) & set(batch)
        assert len(set(heldout)) == len(heldout)
        seen |= set(heldout)
    assert seen == set(range(size))


@pytest.mark.parametrize(("size", "batch_size"), [(9, 5), (10, 10), (10, None)])
def test_heldout_needs_two_batches(size: int, batch_size: int | None) -> None:
    with pytest.raises(BadInput, match=r"probe\.split\.on.* at most"):
        make(numbered(size), batch_size).require_heldout("split")


def test_heldout_images_are_augmented_as_in_their_own_batch() -> None:
    batches = make(images(40), 10)
    for step in range(4):
        assert same(batches.heldout(step), batches((step + 2) % 4))


def test_normalised_as_the_data_set_says() -> None:
    data = images(12, padding=None)
    assert data.mean is not None
    assert data.std is not None
    expected = (data.train.inputs.double() / 255 - data.mean[:, None, None]) / data.std[:, None, None]
    found = make(data, None, dtype=torch.float64)(0).inputs
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_the_same_values_in_every_dtype() -> None:
    data = images(12)
    single, double = make(data, 5)(1), make(data, 5, dtype=torch.float64)(1)
    assert double.inputs.dtype == torch.float64
    assert torch.equal(single.inputs.double(), double.inputs)


def windows(image: Tensor, padding: int) -> list[Tensor]:
    """All crops of an image and their mirror images."""
    _, height, width = image.shape
    padded = F.pad(image, (padding,) * 4)
    offsets = range(2 * padding + 1)
    crops = [padded[:, y : y + height, x : x + width] for y in offsets for x in offsets]
    return [*crops, *(crop.flip(2) for crop in crops)]


def test_crops_and_flips_of_their_own() -> None:
    """Every image is one of its 162 windows, padded before it is normalised; all of them occur."""
    data = images(1)
    batches, plain = make(data, 1), make(replace(data, crop_padding=None), 1)
    pixels = data.train.inputs[0]
    choices = [
        make(replace(data, train=Split(w[None], data.train.labels), crop_padding=None), 1) for w in windows(pixels, 4)
    ]
    expected = torch.stack([choice(0).inputs[0] for choice in choices])
    found = torch.cat([batches(step).inputs for step in range(2000)])
    matches = (found[:, None] == expected).flatten(2).all(2)
    assert (matches.sum(1) == 1).all()
    assert (matches.sum(0) > 0).all()
    assert 900 < matches[:, 81:].sum() < 1100
    assert not torch.equal(batches(0).inputs, plain(0).inputs)
    many = make(images(64), 64)(0)  # and each image its own
    assert len(many.inputs.unique(dim=0)) == 64


def test_training_data_are_not_written_to() -> None:
    data = images(20, test=10)
    before = data.train.inputs.clone()
    batches = make(data, 5)
    for step in range(8):
        batches(step)
        batches.heldout(step)
    list(batches.test(3))
    assert torch.equal(data.train.inputs, before)


def test_float_images_with_statistics_are_not_written_to() -> None:
    data = images(6, padding=None)
    data = replace(data, train=Split(data.train.inputs.float(), data.train.labels))
    before = data.train.inputs.clone()
    make(data, None)(0)
    assert torch.equal(data.train.inputs, before)


def test_test_set_in_order_and_plain() -> None:
    batches = make(numbered(10, test=7), 5)
    assert batches.has_test
    assert [who(batch) for batch in batches.test(3)] == [[0, -1, -2], [-3, -4, -5], [-6]]
    data = images(20, test=10)
    assert data.test is not None
    whole = replace(data, train=data.test, crop_padding=None)
    assert same(next(iter(make(data, 5).test())), make(whole, None)(0))


def test_without_a_test_set() -> None:
    batches = make(numbered(10), 5)
    assert not batches.has_test
    assert list(batches.test()) == []


@pytest.mark.parametrize("batch_size", [0, -1, 11])
def test_refuses_impossible_batch_sizes(batch_size: int) -> None:
    with pytest.raises(BadInput, match=f"batch_size should be from 1 to 10, .* found {batch_size}"):
        make(numbered(10), batch_size)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a cuda device")
@pytest.mark.parametrize("pinned", [False, True])
def test_the_same_values_on_a_cuda_device(pinned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit, also where the data stay on the host."""
    if pinned:
        monkeypatch.setattr("runner.dataset.place._room", lambda device: 0)
    data = images(50, test=20)
    here, there = make(data, 8), make(data, 8, device=torch.device("cuda"))
    for step in range(14):
        for one, other in ((here(step), there(step)), (here.heldout(step), there.heldout(step))):
            assert other.inputs.is_cuda
            assert torch.equal(one.inputs, other.inputs.cpu())
            assert torch.equal(one.labels, other.labels.cpu())
    for one, other in zip(here.test(6), there.test(6), strict=True):
        assert torch.equal(one.inputs, other.inputs.cpu())
    plain = images(50, padding=None)
    whole = make(plain, None, device=torch.device("cuda"))(0)
    assert torch.equal(make(plain, None)(0).inputs, whole.inputs.cpu())


def test_a_fingerprint_tells_data_apart() -> None:
    def split(pixel: int, label: int) -> Split:
        inputs, labels = torch.zeros(3000, 1, 2, 2, dtype=torch.uint8), torch.zeros(3000, dtype=torch.long)
        inputs[2997, 0, 1, 1], labels[1] = pixel, label
        return Split(inputs, labels)

    found = {split(pixel, label).fingerprint() for pixel in (0, 1) for label in (0, 1)}
    assert len(found) == 4
    assert split(0, 0).fingerprint() in found
