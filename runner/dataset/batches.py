"""Which samples are in the batch of a step: random access, without any state but the seed."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from runner.dataset.augment import crop_flip
from runner.dataset.base import Dataset
from runner.dataset.place import place
from runner.errors import BadInput
from runner.seeds import derived


@dataclass(frozen=True)
class Batch:
    """What the network sees: `inputs` (B, ...), normalised and augmented; `labels` (B,), int64.

    `own`: each of R networks side by side sees a batch of its own, (R, B, ...) and (R, B).
    `share`: of the samples of the whole that it is a part of, a batch that several ranks see together, or all data;
    `rank`: whose part it is. `memo`: what is made of it once for all steps and probes that it serves.
    """

    inputs: Tensor
    labels: Tensor
    own: bool = False
    share: float = 1.0
    rank: int = 0
    memo: dict[Any, Tensor] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __len__(self) -> int:
        return self.labels.shape[-1]

    def rows(self, here: slice | list[int] | int | None) -> "Batch":
        """What these of the networks see."""
        if not self.own or here is None:
            return self
        return replace(self, inputs=self.inputs[here], labels=self.labels[here], own=not isinstance(here, int))

    def first(self, count: int) -> "Batch":
        """Its first samples."""
        here = (slice(None), slice(count)) if self.own else slice(count)
        return replace(self, inputs=self.inputs[here], labels=self.labels[here])


@dataclass(frozen=True)
class _Epoch:
    """An epoch's draws, by position in its order. The first positions are repeated at the end, so that every
    batch is one slice, also where it wraps around."""

    number: int
    order: Tensor  # sample indices
    offsets: Tensor | None = None  # of the crops
    flips: Tensor | None = None


class Batches:
    """The training batch of every step, and the test set.

    The order and the augmentation draws of epoch e are a pure function of (seed, e), the same on every
    device; the global generators of torch, NumPy and Python are left alone. `batch_size` None: the whole
    training set in its own order. Raises BadInput unless `batch_size` is from 1 to the number of samples.
    `replicas`: so many networks train side by side, with the seeds `seed`, `seed` + 1, …; where their batches differ
    they are stacked.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        batch_size: int | None,
        seed: int,
        device: torch.device,
        dtype: torch.dtype,
        replicas: int = 1,
    ) -> None:
        self.size = len(dataset.train)
        if batch_size is not None and not 1 <= batch_size <= self.size:
            raise BadInput(
                f"batch_size should be from 1 to {self.size}, the training samples there are, or null for all"
                f" of them, found {batch_size}."
            )
        self.batch_size = batch_size
        self.fingerprints = [None if part is None else part.fingerprint() for part in (dataset.train, dataset.test)]
        self.steps_per_epoch = -(-self.size // self._at_most)
        self._device, self._dtype = device, dtype
        self._data = place(dataset, device)
        self._mean, self._std = _statistics(dataset, device)
        self._own = replicas > 1 and not self._always_whole
        self._seeds = [seed + r for r in range(replicas if self._own else 1)]
        self._epochs: list[_Epoch] = []
        self._whole: Batch | None = None  # the only batch there is, if so
        self._rank, self._ranks = 0, 1

    def part(self, rank: int, ranks: int) -> "Batches":
        """What one of several ranks sees: of every batch an equal part, the first ranks one sample more where it does
        not come out even. Raises BadInput where a batch has too few samples."""
        if (smallest := self.size - (self.steps_per_epoch - 1) * self._at_most) < ranks:
            found = f"of {smallest} samples" if smallest == self._at_most else f"of {smallest} at the end of an epoch"
            raise BadInput(
                f"batch_size should leave at least one sample for each of {ranks} devices, found a batch {found};"
                " choose another batch_size, or fewer devices"
            )
        mine = copy.copy(self)
        mine._rank, mine._ranks = rank, ranks
        return mine

    def epoch(self, step: int) -> float:
        """Passes over the training data done before `step`: the last batch of an epoch may be a short one."""
        number, index = divmod(step, self.steps_per_epoch)
        return (number * self.size + index * self._at_most) / self.size

    def samples(self, step: int) -> int:
        """How many are in the batch of `step`, of all ranks together."""
        return min(self._at_most, self.size - step % self.steps_per_epoch * self._at_most)

    @property
    def has_test(self) -> bool:
        return self._data.test is not None

    @property
    def test_size(self) -> int:
        return len(self._data.test) if self._data.test else 0

    def __call__(self, step: int) -> Batch:
        """The training batch of update number `step`, from 0. It may be that of later steps, too: do not
        write into it."""
        if not self._always_whole:
            return self._slice(step, 0)
        if self._whole is None:
            train, here = self._data.train, self._mine(0, self.size)
            self._whole = self._batch(train.inputs[here], train.labels[here], self.size)
        return self._whole

    def keep(self, rows: Sequence[int]) -> None:
        """From now on only these of the networks side by side need batches."""
        if self._own:
            self._seeds = [self._seeds[row] for row in rows]
            self._epochs = [self._epochs[row] for row in rows] if self._epochs else []

    def heldout(self, step: int) -> Batch:
        """As many training samples, none of them in the batch of `step`: those half an epoch away in the
        order, augmented as in their own batch."""
        return self._slice(step, self.size // 2)

    def require_heldout(self, name: str) -> None:
        """Raises BadInput, naming the probe, unless there are two disjoint batches."""
        if self.size < 2 * self._at_most:
            found = "null, the full batch," if self.batch_size is None else self.batch_size
            raise BadInput(
                f"probe.{name}.on: heldout needs two disjoint batches, found batch_size {found} of"
                f" {self.size} training samples: set batch_size to at most {self.size // 2}, or leave heldout"
                " out."
            )

    def sample(self, count: int) -> Batch:
        """The same `count` training samples in every run, or all of them, drawn at random, without augmentation."""
        order = np.sort(np.random.default_rng(derived(0, "sample")).permutation(self.size)[:count])
        mine = order[self._mine(0, len(order))]
        return self._batch(*self._select(torch.from_numpy(mine).to(self._data.train.inputs.device)), len(order))

    def require_sample(self, name: str, count: int) -> None:
        """Raises BadInput, naming the probe, unless every rank has a part of the sample."""
        if count < self._ranks:
            raise BadInput(f"probe.{name}.samples should be at least {self._ranks}, one for each device, found {count}")

    def whole(self) -> Iterator[Batch]:
        """All training samples in their own order, in batches of the training's size, without augmentation."""
        for start in range(0, self.size, self._at_most):
            here = self._mine(start, min(self._at_most, self.size - start))
            indices = torch.arange(here.start, here.stop, device=self._data.train.inputs.device)
            yield self._batch(*self._select(indices), self.size)

    def test(self, size: int = 1000) -> Iterator[Batch]:
        """The test set in its own order, `size` samples at a time, without augmentation; nothing if there is
        none."""
        if (split := self._data.test) is None:
            return
        for start in range(0, len(split), size * self._ranks):
            here = self._mine(start, min(size * self._ranks, len(split) - start))
            if here.start < here.stop:
                yield self._batch(split.inputs[here], split.labels[here], len(split))

    def _mine(self, start: int, length: int) -> slice:
        """Where this rank's samples are among `length` from `start` on."""
        each, more = divmod(length, self._ranks)
        start += self._rank * each + min(self._rank, more)
        return slice(start, start + each + (self._rank < more))

    @property
    def _always_whole(self) -> bool:
        """Every batch is the same: all samples as they are."""
        return self.batch_size is None and self._data.crop_padding is None

    @property
    def _at_most(self) -> int:
        return self.batch_size or self.size

    def _slice(self, step: int, ahead: int) -> Batch:
        """The batch of `step`, if every position were `ahead` further in the epoch's order."""
        number, index = divmod(step, self.steps_per_epoch)
        length = self.samples(step)
        here = self._mine((index * self._at_most + ahead) % self.size, length)
        if not self._epochs or self._epochs[0].number != number:
            self._epochs = [self._draw(number, seed) for seed in self._seeds]
        inputs, labels = self._select(_joined([epoch.order[here] for epoch in self._epochs]))
        if (padding := self._data.crop_padding) is not None:
            offsets = _joined([epoch.offsets[here] for epoch in self._epochs if epoch.offsets is not None])
            flips = _joined([epoch.flips[here] for epoch in self._epochs if epoch.flips is not None])
            inputs = crop_flip(inputs, offsets, flips, padding)
        batch = self._batch(inputs, labels, length)
        if not self._own:
            return batch
        each = (len(self._seeds), length)
        inputs, labels = batch.inputs.unflatten(0, each), batch.labels.unflatten(0, each)
        return replace(batch, inputs=inputs, labels=labels, own=True, share=1.0)

    def _draw(self, number: int, seed: int) -> _Epoch:
        rng = np.random.default_rng(derived(seed, "order", number))
        order = np.arange(self.size) if self.batch_size is None else rng.permutation(self.size)
        indices = self._wrapped(order, self._data.train.inputs.device)
        if (padding := self._data.crop_padding) is None:
            return _Epoch(number, indices)
        rng = np.random.default_rng(derived(seed, "augmentation", number))
        offsets = rng.integers(0, 2 * padding, (self.size, 2), endpoint=True)
        flips = rng.integers(0, 2, self.size).astype(bool)
        return _Epoch(number, indices, self._wrapped(offsets, self._device), self._wrapped(flips, self._device))

    def _wrapped(self, draws: np.ndarray[Any, Any], device: torch.device) -> Tensor:
        return torch.from_numpy(np.concatenate([draws, draws[: self._at_most]])).to(device)

    def _select(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """These training samples on the device."""
        train = self._data.train
        if train.inputs.device.type == self._device.type:
            return train.inputs.index_select(0, indices), train.labels.index_select(0, indices)
        return _send(train.inputs, indices, self._device), _send(train.labels, indices, self._device)

    def _batch(self, inputs: Tensor, labels: Tensor, of: int) -> Batch:
        """Inputs and labels as the network takes them, on the device: a part of the `of` samples of a whole.

        Normalised in float32, whatever the dtype, and by operations that every device rounds correctly: the
        values are the same on every device and in every dtype.
        """
        inputs, labels = inputs.to(self._device), labels.to(self._device)
        if self._mean is not None and self._std is not None:
            inputs = (inputs.to(torch.float32) - self._mean) / self._std
        return Batch(inputs.to(self._dtype), labels, share=len(labels) / of, rank=self._rank)


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _statistics(dataset: Dataset, device: torch.device) -> tuple[Tensor | None, Tensor | None]:
    """Mean and standard deviation in units of the 256 levels, (C, 1, 1) each, on the device."""
    if dataset.mean is None or dataset.std is None:
        return None, None
    mean, std = ((255 * value).float().to(device)[:, None, None] for value in (dataset.mean, dataset.std))
    return mean, std


def _send(tensor: Tensor, indices: Tensor, device: torch.device) -> Tensor:
    """Gathers on the host, and sends while the device is still at work on something else."""
    gathered = torch.empty((len(indices), *tensor.shape[1:]), dtype=tensor.dtype, pin_memory=True)
    return torch.index_select(tensor, 0, indices, out=gathered).to(device, non_blocking=True)
