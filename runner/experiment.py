"""All that the loop and the probes need of a run, and no config."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from runner.curvature import randomness
from runner.curvature.batch_loss import BatchLoss
from runner.curvature.vectors import Vector
from runner.dataset.batches import Batch, Batches
from runner.networks import Networks, Rows
from runner.probe.base import Probe
from runner.ranks import ALONE, Ranks
from runner.schedule import Schedule
from runner.seeds import derived
from runner.task import Task


@dataclass
class Experiment:
    """All that the loop needs, and no config."""

    networks: Networks
    loss_fn: nn.Module
    task: Task
    batches: Batches
    undivided: Batches  # those of all ranks, of which `batches` are this one's parts
    optimizer: torch.optim.Optimizer
    rates: list[float]  # the initial rate of each parameter group
    schedule: Schedule
    probes: dict[str, Probe]
    seed: int
    steps: int
    log_every: int
    eval_every: int
    clip_norm: float | None
    until_grad_norm: float | None
    precision: str
    device: torch.device
    ranks: Ranks = ALONE

    @property
    def dtype(self) -> torch.dtype:
        """That of the parameters, and of probes that do not ask for another."""
        return torch.float64 if self.precision == "fp64" else torch.float32

    @property
    def mixed(self) -> bool:
        """Training runs under bf16 autocast, so its gradient is not the one that probes use."""
        return self.precision == "bf16"

    @property
    def model(self) -> nn.Module:
        """The network; of replicas the stack."""
        return self.networks.model

    def outputs(self, batch: Batch, rows: Rows = None) -> Tensor:
        """(N, outputs), or (R, N, outputs), in training's arithmetic; in fp32 or more whatever that is, since the loss
        follows."""
        with torch.autocast(self.device.type, torch.bfloat16) if self.mixed else nullcontext():
            return self.networks.outputs(batch.inputs, rows, batch.own).to(self.dtype)

    def losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The mean loss, 0-d, or of each network, (R,)."""
        return self.networks.each(self.loss_fn, 0, 0 if batch.own else None)(outputs, self.targets(batch))

    def errors(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The fraction of wrong decisions in float64, 0-d, or of each network, (R,)."""
        return self.task.wrong(outputs, batch.labels).mean(-1, dtype=torch.float64)

    def seed_draws(self, step: int, rank: int = 0) -> None:
        """Dropout masks and whatever else the network draws at a step are a pure function of (seed, step) and of the
        rank, whose samples are others."""
        whose = (rank,) if rank else ()
        randomness.seed(derived(self.seed, "draws", step, *whose), self.device)

    def targets(self, batch: Batch) -> Tensor:
        """What the loss takes besides the outputs, in the dtype of the parameters."""
        if (key := ("targets", self.dtype)) not in batch.memo:
            batch.memo[key] = self.task.targets(batch.labels, self.dtype)
        return batch.memo[key]

    def batch_loss(
        self, batch: Batch, step: int, dtype: torch.dtype, rows: Rows | int = None, buffers: Vector | None = None
    ) -> BatchLoss:
        """L_B with the random draws that the training step `step` makes; of these rows of the stack, if it is one.
        `buffers`: others than the network's own."""
        part = batch if rows is None else batch.rows(rows)
        with randomness.preserved(self.device):
            self.seed_draws(step, part.rank)
            return BatchLoss(
                self.model,
                self.loss_fn,
                part.inputs,
                self.targets(part),
                dtype,
                rows=rows,
                own_data=part.own,
                share=part.share,
                buffers=buffers,
            )

    def keep(self, rows: Sequence[int]) -> None:
        """Only these rows of the stack train on."""
        self.networks.keep(rows, self.optimizer)
        self.batches.keep(rows)
