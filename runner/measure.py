"""What the probes see at one step: losses as functions, and the gradient, each computed once and shared."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from runner.build import Experiment
from runner.curvature import randomness
from runner.curvature.batch_loss import BatchLoss
from runner.curvature.vectors import Vector
from runner.dataset.batches import Batch
from runner.probe.base import Place, Point, Probe
from runner.records import Cell


class Measurement:
    """The state w_step with the batch of the coming update, after its backward pass and before the update."""

    def __init__(self, run: Experiment, step: int, batch: Batch, lr: float) -> None:
        self.run, self.step, self.lr = run, step, lr
        self._batches: dict[Place, Callable[[], Batch]] = {
            "batch": lambda: batch,
            "heldout": lambda: run.batches.heldout(step),
        }
        self._losses: dict[tuple[Place, torch.dtype], BatchLoss] = {}
        self._gradients: dict[tuple[Place, torch.dtype], Vector] = {}

    def cells(self, name: str, probe: Probe) -> dict[str, Tensor | None]:
        """The probe's cells of this row, under their column names."""
        dtype = probe_dtype(probe, self.run)
        found = probe.measure_all(lambda place: self._point(place, dtype), with_gg=self.run.mixed)
        return {f"{name}_{column}": value for column, value in found.items()}

    def rows(self, probe: Probe) -> Iterator[dict[str, Cell]]:
        """The probe's rows of its long-form table."""
        dtype = probe_dtype(probe, self.run)
        for place in probe.on:
            for row in probe.rows(self._point(place, dtype)):
                yield {"step": self.step, "replica": 0, **row, "on": place}

    def _point(self, place: Place, dtype: torch.dtype) -> Point:
        return Point(
            loss=self._loss(place, dtype),
            g=self._gradient("batch", dtype),
            at_w=lambda: self._gradient(place, dtype),
            lr=self.lr,
            next=lambda: self._build(self.run.batches(self.step + 1), self.step + 1, dtype),
        )

    def _loss(self, place: Place, dtype: torch.dtype) -> BatchLoss:
        if (place, dtype) not in self._losses:
            self._losses[place, dtype] = self._build(self._batches[place](), self.step, dtype)
        return self._losses[place, dtype]

    def _build(self, batch: Batch, step: int, dtype: torch.dtype) -> BatchLoss:
        """L_B with the random draws that the training step `step` makes."""
        with randomness.preserved(self.run.device):
            self.run.seed_draws(step)
            return BatchLoss(self.run.model, self.run.loss_fn, batch.inputs, self.run.targets(batch), dtype)

    def _gradient(self, place: Place, dtype: torch.dtype) -> Vector:
        """grad L_B; the training step's own where it was made in the probe's dtype."""
        if (place, dtype) not in self._gradients:
            own = place == "batch" and dtype == self.run.dtype and not self.run.mixed
            self._gradients[place, dtype] = self._trained() if own else self._loss(place, dtype).gradient()
        return self._gradients[place, dtype]

    def _trained(self) -> Vector:
        named = self.run.model.named_parameters()
        return {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in named if p.requires_grad}


def probe_dtype(probe: Probe, run: Experiment) -> torch.dtype:
    return {"fp32": torch.float32, "fp64": torch.float64, None: run.dtype}[probe.dtype]
