"""What the probes see at one step: losses as functions, and the gradient, each computed once and shared."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from runner.build import Experiment
from runner.curvature import randomness
from runner.curvature.batch_loss import BatchLoss
from runner.curvature.operator import Matrix, Operator
from runner.curvature.streamed import Loss, StreamedLoss
from runner.curvature.vectors import Vector
from runner.dataset.batches import Batch
from runner.probe.base import Place, Point, Probe, prefix
from runner.records import Cell
from runner.seeds import derived


class Measurement:
    """The state w_step with the batch of the coming update, after its backward pass and before the update."""

    def __init__(self, run: Experiment, step: int, batch: Batch, lr: float) -> None:
        self.run, self.step, self.lr, self._batch = run, step, lr, batch
        self._losses: dict[tuple[Place, int, torch.dtype], Loss] = {}
        self._gradients: dict[tuple[Place, int, torch.dtype], Vector] = {}
        self._points: dict[tuple[str, Place], Point] = {}
        self._operators: dict[tuple[Place, int, torch.dtype, Matrix], Operator] = {}

    def cells(self, name: str, probe: Probe) -> dict[str, Tensor | None]:
        """The probe's cells of this row, under their column names."""
        found = probe.measure_all(lambda place: self._point(name, probe, place), with_gg=self.run.mixed)
        return {f"{name}_{column}": value for column, value in found.items()}

    def rows(self, name: str, probe: Probe) -> Iterator[dict[str, Cell]]:
        """The probe's rows of its long-form table."""
        for place in probe.on:
            for row in probe.rows(self._point(name, probe, place)):
                yield {"step": self.step, "replica": 0, **row, "on": place}

    def files(self, name: str, probe: Probe) -> Iterator[tuple[str, Any]]:
        """The probe's files, by names that say where they are from."""
        for place in probe.on:
            for stem, content in probe.files(self._point(name, probe, place)):
                yield f"{prefix(place)}{stem}-step{self.step}", content

    def _point(self, name: str, probe: Probe, place: Place) -> Point:
        if (name, place) not in self._points:
            self._points[name, place] = self._make_point(name, probe, place)
        return self._points[name, place]

    def _make_point(self, name: str, probe: Probe, place: Place) -> Point:
        dtype = probe_dtype(probe, self.run)
        at = (place, probe.samples if place == "sample" else 0, dtype)
        return Point(
            loss=self._loss(*at),
            g=self._gradient("batch", 0, dtype),
            at_w=lambda: self._gradient(*at),
            lr=self.lr,
            next=lambda: self._build(self.run.batches(self.step + 1), self.step + 1, dtype),
            operator=lambda matrix: self._operator(*at, matrix),
            seed=derived(self.run.seed, "probe", name, self.step),
            place=place,
        )

    def _loss(self, place: Place, samples: int, dtype: torch.dtype) -> Loss:
        key = (place, samples, dtype)
        if key not in self._losses:
            batches = self.run.batches
            if place == "dataset":
                self._losses[key] = StreamedLoss(lambda: self._parts(dtype))
            else:
                whole = {
                    "batch": lambda: self._batch,
                    "heldout": lambda: batches.heldout(self.step),
                    "sample": lambda: batches.sample(samples),
                }
                self._losses[key] = self._build(whole[place](), self.step, dtype)
        return self._losses[key]

    def _parts(self, dtype: torch.dtype) -> Iterator[tuple[float, BatchLoss]]:
        for batch in self.run.batches.whole():
            yield len(batch) / self.run.batches.size, self._build(batch, self.step, dtype)

    def _operator(self, place: Place, samples: int, dtype: torch.dtype, matrix: Matrix) -> Operator:
        key = (place, samples, dtype, matrix)
        if key not in self._operators:
            self._operators[key] = Operator(self._loss(place, samples, dtype), matrix)
        return self._operators[key]

    def _build(self, batch: Batch, step: int, dtype: torch.dtype) -> BatchLoss:
        """L_B with the random draws that the training step `step` makes."""
        with randomness.preserved(self.run.device):
            self.run.seed_draws(step)
            return BatchLoss(self.run.model, self.run.loss_fn, batch.inputs, self.run.targets(batch), dtype)

    def _gradient(self, place: Place, samples: int, dtype: torch.dtype) -> Vector:
        """grad L_B; the training step's own where it was made in the probe's dtype."""
        key = (place, samples, dtype)
        if key not in self._gradients:
            own = place == "batch" and dtype == self.run.dtype and not self.run.mixed
            self._gradients[key] = self._trained() if own else self._loss(*key).gradient()
        return self._gradients[key]

    def _trained(self) -> Vector:
        named = self.run.model.named_parameters()
        return {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in named if p.requires_grad}


def probe_dtype(probe: Probe, run: Experiment) -> torch.dtype:
    return {"fp32": torch.float32, "fp64": torch.float64, None: run.dtype}[probe.dtype]
