"""The training loop: measure at w_step, then update to w_step+1."""

import time
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from runner.build import Experiment
from runner.curvature.vectors import norm
from runner.dataset.batches import Batch
from runner.evaluate import evaluate
from runner.measure import Measurement
from runner.progress import Progress
from runner.records import Cell
from runner.stopwatch import Costs

Row = dict[str, Cell]


class Ended(NamedTuple):
    """How a run ended, after how many updates, and why."""

    status: Literal["finished", "diverged", "interrupted"]
    step: int
    reason: str = ""


class Hooks(NamedTuple):
    """The loop's contact with the world.

    `save(step)` keeps a checkpoint of w_step; `stop()` names the reason to end before the coming step, if there is one;
    `show(step, row)` is told what was measured. `checkpoint_seconds`: how often a checkpoint is kept at least.
    """

    save: Callable[[int], None]
    stop: Callable[[], str]
    show: Callable[[int, Row], None]
    checkpoint_seconds: float


def train(run: Experiment, progress: Progress, hooks: Hooks, costs: Costs) -> Ended:
    """Train from where `progress` stands to the last step.

    A row describes w_step and is measured before the update; the checkpoint at w_step is kept before that, so that a
    finished run can be extended as if it had never ended."""
    run.model.train()
    saved = time.monotonic()
    for step in range(progress.step, run.steps + 1):
        reason = hooks.stop()
        if reason or step == run.steps or time.monotonic() - saved > hooks.checkpoint_seconds:
            hooks.save(step)
            saved = time.monotonic()
        if reason:
            return Ended("interrupted", step, reason)
        lr = set_rate(run, step)
        row: Row = {"step": step, "epoch": step / run.batches.steps_per_epoch, "replica": 0, "lr": lr}
        if evaluation_due(run, step):  # before the forward pass, which moves batch norm's running statistics on
            row |= evaluate(run)
        with costs.training.running():
            batch = run.batches(step)
            loss, error, grad_norm = forward_backward(run, step, batch)
        row |= {"train_loss": loss, "train_error": error, "grad_norm": grad_norm}
        finite = bool(torch.isfinite(loss + grad_norm))
        record(run, progress, Measurement(run, step, batch, lr), row, costs, finite)
        hooks.show(step, row)
        if not finite:
            return Ended("diverged", step, f"loss {loss.item():g}, gradient norm {grad_norm.item():g}")
        if step < run.steps:
            with costs.training.running():
                update(run)
            costs.steps += 1
            progress.epoch.add_step(loss, error, len(batch.labels))
    return Ended("finished", run.steps)


def set_rate(run: Experiment, step: int) -> float:
    """Give every parameter group the rate of the coming update; that of the first is returned."""
    factor = run.schedule.factor(step, run.batches.steps_per_epoch)
    for group, rate in zip(run.optimizer.param_groups, run.rates, strict=True):
        group["lr"] = rate * factor
    return float(run.optimizer.param_groups[0]["lr"])


def forward_backward(run: Experiment, step: int, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, error and |g| of the training batch, 0-d tensors; g stays in the parameters' `.grad`."""
    run.optimizer.zero_grad(set_to_none=True)
    run.seed_draws(step)
    outputs = run.forward(batch.inputs)
    loss = run.loss_fn(outputs, run.targets(batch))
    loss.backward()
    error = run.task.wrong(outputs.detach(), batch.labels).double().mean()
    gradients = {name: p.grad for name, p in run.model.named_parameters() if p.grad is not None}
    return loss.detach(), error, norm(gradients)


def evaluation_due(run: Experiment, step: int) -> bool:
    return run.batches.has_test and (step == run.steps or (step > 0 and step % run.eval_every == 0))


def record(run: Experiment, progress: Progress, at: Measurement, row: Row, costs: Costs, finite: bool) -> None:
    """Complete the row by the probes that are due, and write it if anything is. A state that is not finite is always
    written, and not probed."""
    step, length = at.step, run.batches.steps_per_epoch
    if step > 0 and (step % length == 0 or step == run.steps or not finite):
        progress.end_epoch(row)
    due = [name for name, probe in run.probes.items() if finite and probe.cadence.due(step, length, run.steps)]
    for name in due:
        with costs.probes[name].running():
            row |= at.cells(name, run.probes[name])
            progress.add_rows(name, at.rows(name, run.probes[name]))
            progress.add_files(name, at.files(name, run.probes[name]))
        costs.measurements[name] += 1
    if due or not finite or evaluation_due(run, step) or step % run.log_every == 0 or step == run.steps:
        progress.add_row(row)


def update(run: Experiment) -> None:
    """w_step -> w_step+1. Clipping comes after the measurement: curvature is always that of the loss gradient."""
    if run.clip_norm is not None:
        nn.utils.clip_grad_norm_(run.model.parameters(), run.clip_norm)
    run.optimizer.step()
