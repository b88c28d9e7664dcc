"""What the probes see at one step: losses as functions, and the gradient, each computed once and shared."""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from runner.cells import Cells, joined
from runner.curvature.batch_loss import BatchLoss
from runner.curvature.operator import Matrix, Operator
from runner.curvature.streamed import Loss, ShardedLoss, StreamedLoss
from runner.curvature.vectors import Vector
from runner.dataset.batches import Batch, Batches
from runner.experiment import Experiment
from runner.kept import stem
from runner.networks import Rows
from runner.probe.base import Place, Point, Probe, prefix
from runner.seeds import derived


class Spot(NamedTuple):
    """Which loss: of what data, in which dtype, of which row of a stack (None: of all that are measured), and whether
    every rank has all of the data, or its part."""

    place: Place
    samples: int
    dtype: torch.dtype
    row: int | None
    undivided: bool = False


class Measurement:
    """The state w_step with the batch of the coming update, after its backward pass and before the update; of networks
    side by side these `rows` of the stack. `buffers`: those of before the forward pass, which g is of."""

    def __init__(
        self, run: Experiment, step: int, batch: Batch, lr: float, rows: Rows = None, buffers: Vector | None = None
    ) -> None:
        self.run, self.step, self.lr, self._buffers = run, step, lr, buffers
        self._batch, self._stack = batch, rows
        self._points: dict[tuple[str, Spot], Point] = {}
        self._losses: dict[Spot, Loss] = {}
        self._gradients: dict[Spot, Vector] = {}
        self._operators: dict[tuple[Spot, Matrix], Operator] = {}

    def cells(self, name: str, probe: Probe) -> Cells:
        """The probe's cells of this row, under their column names; numbers (R,) of networks side by side."""
        looks = [partial(self._point, name, probe, row) for row in self._views(probe)]
        found = joined([dict(probe.measure_all(look, with_gg=self.run.mixed)) for look in looks])
        count = 1 if self._stack is None else len(self._indices())
        for column, value in found.items():  # a number that is not one for each network would be taken for all of them
            if value is None:
                continue
            numbers = len(value) if isinstance(value, list) else torch.as_tensor(value).numel()
            if numbers != count:
                of = f" for each of {count} networks" if count > 1 else ""
                raise ValueError(f"probe {name}: {column} should be one number{of}, found {numbers}")
        return {f"{name}_{column}": value for column, value in found.items()}

    def rows(self, name: str, probe: Probe) -> Iterator[Cells]:
        """The probe's rows of its long-form table."""
        for row in self._views(probe):
            for place in probe.on:
                for cells in probe.rows(self._point(name, probe, row, place)):
                    yield {"step": self.step, "replica": self._replicas(row), **cells, "on": place}

    def files(self, name: str, probe: Probe) -> Iterator[tuple[str, Any]]:
        """The probe's files, by names that say where they are from."""
        for row in self._views(probe):
            for place in probe.on:
                for what, content in probe.files(self._point(name, probe, row, place)):
                    here, replicas = f"{prefix(place)}{what}", self._replicas(row)
                    if isinstance(replicas, Tensor):
                        for r, one in zip(replicas, content, strict=True):
                            yield stem(here, self.step, int(r)), one
                    else:
                        yield stem(here, self.step, None if self._stack is None else replicas), content

    def _views(self, probe: Probe) -> list[int | None]:
        """How the probe looks at networks side by side: at all of them at once if it can, else at one after the
        other."""
        if self._stack is None or probe.side_by_side:
            return [None]
        return list(self._indices())

    def _indices(self) -> list[int]:
        ids = range(len(self.run.networks.ids))
        return list(ids[self._stack]) if isinstance(self._stack, slice) else self._stack or [0]

    def _replicas(self, row: int | None) -> Tensor | int:
        ids = self.run.networks.ids
        if row is None and self._stack is not None:
            return torch.tensor([ids[index] for index in self._indices()])
        return ids[row or 0]

    def _point(self, name: str, probe: Probe, row: int | None, place: Place) -> Point:
        dtype = probe_dtype(probe, self.run)
        undivided = self.run.ranks.count > 1 and not probe.streams
        here = Spot(place, probe.samples if place == "sample" else 0, dtype, row, undivided)
        if (name, here) not in self._points:
            replica = self.run.networks.ids[row or 0]
            self._points[name, here] = Point(
                loss=self._loss(here),
                g=self._gradient(Spot("batch", 0, dtype, row)),
                at_w=lambda: self._gradient(here),
                lr=self.lr,
                next=lambda: self._joint(self._batches(here)(self.step + 1), here, self.step + 1),
                operator=lambda matrix: self._operator(here, matrix),
                seed=derived(self.run.seed + replica, "probe", name, self.step),
                place=place,
                replica=replica,
            )
        return self._points[name, here]

    def _loss(self, at: Spot) -> Loss:
        if at not in self._losses:
            batches = self._batches(at)
            if at.place == "dataset":
                self._losses[at] = StreamedLoss(lambda: self._parts(at), self.run.ranks.total)
            else:
                batch = {
                    "batch": lambda: batches(self.step) if at.undivided else self._batch,
                    "heldout": lambda: batches.heldout(self.step),
                    "sample": lambda: batches.sample(at.samples),
                }
                self._losses[at] = self._joint(batch[at.place](), at, self.step)
        return self._losses[at]

    def _batches(self, at: Spot) -> Batches:
        return self.run.undivided if at.undivided else self.run.batches

    def _parts(self, at: Spot) -> Iterator[BatchLoss]:
        for batch in self.run.batches.whole():
            yield self._build(batch, at, self.step)

    def _joint(self, batch: Batch, at: Spot, step: int) -> Loss:
        """The loss of a batch, of which the ranks hold parts if there are several."""
        own, ranks = self._build(batch, at, step), self.run.ranks
        return own if ranks.count == 1 or at.undivided else ShardedLoss(own, ranks.total)

    def _build(self, batch: Batch, at: Spot, step: int) -> BatchLoss:
        return self.run.batch_loss(batch, step, at.dtype, self._stack if at.row is None else at.row, self._buffers)

    def _operator(self, at: Spot, matrix: Matrix) -> Operator:
        if (at, matrix) not in self._operators:
            self._operators[at, matrix] = Operator(self._loss(at), matrix)
        return self._operators[at, matrix]

    def _gradient(self, at: Spot) -> Vector:
        """grad L_B; the training step's own where it was made in the probe's dtype."""
        if at not in self._gradients:
            own = at.place == "batch" and at.dtype == self.run.dtype and not self.run.mixed
            self._gradients[at] = self._trained(at.row) if own else self._loss(at).gradient()
        return self._gradients[at]

    def _trained(self, row: int | None) -> Vector:
        rows = self._stack if row is None else row
        named = self.run.networks.parameters.items()
        g = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in named if p.requires_grad}
        return g if rows is None else {name: entry[rows] for name, entry in g.items()}


def probe_dtype(probe: Probe, run: Experiment) -> torch.dtype:
    return {"fp32": torch.float32, "fp64": torch.float64, None: run.dtype}[probe.dtype]
