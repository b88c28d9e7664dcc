"""The training loop: measure at w_step, then update to w_step+1."""

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from runner import updating
from runner.ahead import Kept, Pace, Then, Waiting, at_once
from runner.cells import Cells, joined, pick, spread
from runner.closure import Closure, needs_closure
from runner.curvature.functional import with_buffers
from runner.dataset.batches import Batch
from runner.ending import Ended, endings
from runner.evaluate import evaluate
from runner.experiment import Experiment
from runner.measure import Measurement
from runner.progress import Progress
from runner.stopwatch import Costs


class Hooks(NamedTuple):
    """The loop's contact with the world.

    `save(step)` keeps a checkpoint of w_step; `stop()` names the reason to end before the coming step, if there is one;
    `show(step, row)` is told what was measured. `checkpoint_seconds`: how often a checkpoint is kept at least.
    """

    save: Callable[[int], None]
    stop: Callable[[], str]
    show: Callable[[int, Cells], None]
    checkpoint_seconds: float


class State(NamedTuple):
    """w_step of the networks that train, g being in their parameters' `.grad`: the batch of the coming update and its
    rate, and what is known without probes, one number each or one for each replica, (R,). `buffers`: those of before
    the forward pass, kept where something is measured, a network may end or the optimizer comes back to the loss."""

    step: int
    lr: float
    batch: Batch
    cells: Cells
    buffers: dict[str, Tensor] | None


def train(run: Experiment, progress: Progress, hooks: Hooks, costs: Costs) -> Ended:
    """Train from where `progress` stands to the last step.

    A row describes w_step and is measured before the update; the checkpoint at w_step is kept before that, so that a
    finished run can be extended as if it had never ended."""
    run.model.train()
    step, saved, pace = progress.step, time.monotonic(), Pace(run)
    while run.networks.ids and step <= run.steps:
        reason = hooks.stop()
        if reason or step == run.steps or time.monotonic() - saved > hooks.checkpoint_seconds:
            hooks.save(step)
            saved = time.monotonic()
        if reason:
            return Ended("interrupted", step, reason)
        block, began = pace.block(step, partial(due, run)), time.monotonic()
        if len(block) == 1 or not steps_ahead(run, progress, hooks, costs, block):
            for step in block:
                take_step(run, progress, hooks, costs, step)
                if not run.networks.ids:
                    hooks.save(step)
                    return progress.ended(step)
        pace.took(len(block), time.monotonic() - began)
        step = block.stop
    if not run.networks.ids:
        return progress.ended(progress.step)
    progress.outcomes |= {one: Ended("finished", run.steps) for one in run.networks.ids}
    return Ended("finished", run.steps)


def steps_ahead(run: Experiment, progress: Progress, hooks: Hooks, costs: Costs, block: range) -> bool:
    """Take these steps before looking at what they have measured. If the network has diverged on the way, nothing has
    happened: False. What was measured before an error is recorded all the same."""
    kept, waiting = Kept(run), Waiting()
    try:
        for step in block:
            take_step(run, progress, hooks, costs, step, waiting.then)
    except Exception:
        with suppress(Exception):  # the device may be lost, or the network have diverged: the first error is the one
            if not diverged(waiting.arrive()):
                waiting.act()
        raise
    if diverged(waiting.arrive()):
        kept.restore()
        return False
    waiting.act()
    return True


def diverged(rows: list[Cells]) -> bool:
    """Whether the network has, at a step of these cells."""
    return any(endings(0, cells, until_grad_norm=None) for cells in {cells["step"]: cells for cells in rows}.values())


def take_step(
    run: Experiment, progress: Progress, hooks: Hooks, costs: Costs, step: int, then: Then | None = None
) -> None:
    """Measure at w_step and update. `then`: what is to be done with the numbers comes later; without it at once, and
    the networks that are at their end are retired."""
    state = look(run, step, costs, may_end=then is None)
    later = then or at_once
    if then is None:
        state = retire(run, progress, state, costs)
        if not run.networks.ids:
            return
    if step > 0 and (step % run.batches.steps_per_epoch == 0 or step == run.steps):
        later(progress.end_epoch, state.cells)
    later(partial(hooks.show, step), record(run, progress, state, costs, due(run, step), then=later))
    if step < run.steps:
        with costs.training.running():
            update(run, state)
        later(partial(add_step, progress, run.batches.samples(step)), state.cells)


def add_step(progress: Progress, samples: int, cells: Cells) -> None:
    progress.epoch.add_step(cells["train_loss"], cells["train_error"], samples)


def look(run: Experiment, step: int, costs: Costs, may_end: bool = True) -> State:
    """The state w_step, after a forward and backward pass on its batch. `may_end`: networks may be retired at it."""
    replica = torch.tensor(run.networks.ids) if run.networks.stacked else 0
    cells: Cells = {"step": step, "epoch": run.batches.epoch(step), "replica": replica}
    if evaluation_due(run, step):  # before the forward pass, which moves batch norm's running statistics on
        cells |= evaluate(run)
    needed = may_end or schedule_due(run, step) or due(run, step)
    buffers = {name: one.clone() for name, one in run.model.named_buffers()} if needed else None
    with costs.training.running():
        batch = run.batches(step)
        loss, error, grad_norm = forward_backward(run, step, batch)
    costs.steps += 1
    if schedule_due(run, step):
        with costs.schedule.running():
            inform_schedule(run, step, batch, buffers)
        costs.informed += 1
    lr = set_rate(run, step)
    cells |= {"lr": lr, "train_loss": loss, "train_error": error, "grad_norm": grad_norm}
    return State(step, lr, batch, cells, buffers)


def schedule_due(run: Experiment, step: int) -> bool:
    """Whether the schedule has to know something of this step's batch."""
    probe = run.schedule.measures
    return probe is not None and probe.cadence.due(step, run.batches.steps_per_epoch, run.steps)


def inform_schedule(run: Experiment, step: int, batch: Batch, buffers: dict[str, Tensor] | None) -> None:
    """Measure what the schedule has to know before it can tell the rate of the coming update."""
    assert run.schedule.measures is not None
    lr = float(run.optimizer.param_groups[0]["lr"])  # of the update before
    at = Measurement(run, step, batch, lr, buffers=buffers)
    run.schedule.take(at.cells("schedule", run.schedule.measures), run.rates[0])


def set_rate(run: Experiment, step: int) -> float:
    """Give every parameter group the rate of the coming update; that of the first is returned."""
    for group, initial in zip(run.optimizer.param_groups, run.rates, strict=True):
        group["lr"] = run.schedule.rate(initial, step, run.batches.steps_per_epoch)
    return float(run.optimizer.param_groups[0]["lr"])


def forward_backward(run: Experiment, step: int, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, error and |g| of the training batch, 0-d tensors or (R,); g stays in the parameters' `.grad`."""
    run.networks.zero_grad()
    found, sums = [], list[Tensor]()
    with run.ranks.together(run.model, batch.share, sums):
        for rows in run.networks.parts():
            run.seed_draws(step, batch.rank)
            part = batch.rows(rows)
            outputs = run.outputs(part, rows)
            losses = run.losses(outputs, part)
            losses.backward(torch.full_like(losses, part.share))
            found.append((part.share * losses.detach(), part.share * run.errors(outputs.detach(), part)))
        sums += (torch.cat(parts) if run.networks.stacked else parts[0] for parts in zip(*found, strict=True))
    loss, error = sums
    return loss, error, run.networks.grad_norm()


def evaluation_due(run: Experiment, step: int) -> bool:
    return run.batches.has_test and (step == run.steps or (step > 0 and step % run.eval_every == 0))


def due(run: Experiment, step: int, last: bool = False) -> list[str]:
    """The probes that measure at this step, which may be a network's last one."""
    length = run.batches.steps_per_epoch
    return [name for name, p in run.probes.items() if p.cadence.due(step, length, step if last else run.steps)]


def retire(run: Experiment, progress: Progress, state: State, costs: Costs) -> State:
    """Record for the last time the networks that have diverged, without probes, and those that are at the end that
    `until` sets. The state of the ones that go on."""
    ended = endings(state.step, state.cells, run.until_grad_norm)
    if not ended:
        return state
    last = evaluated(run, state, list(ended))
    for status in ("diverged", "finished"):
        rows = [row for row, outcome in ended.items() if outcome.status == status]
        if rows:
            progress.end_epoch(last.cells, rows)
            record(run, progress, last, costs, due(run, state.step, last=True) if status == "finished" else [], rows)
    progress.outcomes |= {run.networks.ids[row]: outcome for row, outcome in ended.items()}
    rest = [row for row in range(len(run.networks.ids)) if row not in ended]
    progress.keep(rest)
    run.keep(rest)
    buffers = {name: one[rest] for name, one in (state.buffers or {}).items()} if rest else None
    return state._replace(batch=state.batch.rows(rest), cells=pick(state.cells, rest), buffers=buffers)


def evaluated(run: Experiment, state: State, rows: list[int]) -> State:
    """`state` with the test set's cells, which a network's last row always has, for these rows of the stack: those of
    w_step as `look` would have found them, before the forward pass moved the buffers on."""
    if not run.batches.has_test or "test_loss" in state.cells:
        return state
    assert state.buffers is not None  # kept, where a network may end
    with with_buffers(run.model, state.buffers):
        found = evaluate(run, rows)
    return state._replace(cells={**state.cells, **spread(found, rows, len(run.networks.ids))})


def record(
    run: Experiment,
    progress: Progress,
    state: State,
    costs: Costs,
    probes: list[str],
    rows: list[int] | None = None,
    then: Then = at_once,
) -> Cells:
    """Complete the row, or these rows of the stack, by the probes, and write it if anything is due. A network's last
    state (of given `rows`) is always written."""
    step, found = state.step, list[Cells]()
    for part in run.networks.parts(rows):
        at = Measurement(run, step, state.batch, state.lr, part, state.buffers)
        measured: Cells = {}
        for name in probes:
            with costs.probes[name].running():
                measured |= at.cells(name, run.probes[name])
                progress.add_rows(name, at.rows(name, run.probes[name]))
                progress.add_files(name, at.files(name, run.probes[name]))
        found.append(measured)
    for name in probes:
        costs.measurements[name] += 1
    cells = pick(state.cells, rows) | joined(found)
    if probes or rows is not None or evaluation_due(run, step) or step % run.log_every == 0 or step == run.steps:
        then(partial(progress.add_row, last=rows is not None), cells)
    return cells


def update(run: Experiment, state: State) -> None:
    """w_step -> w_step+1. Clipping comes after the measurement: curvature is always that of the loss gradient."""
    if run.clip_norm is not None:
        run.networks.clip(run.clip_norm)
    if not needs_closure(run.optimizer):
        updating.update(run.optimizer)
    elif state.lr > 0:  # there is nothing to search for along a step of no length
        loss = run.batch_loss(state.batch, state.step, run.dtype, buffers=state.buffers)
        run.optimizer.step(Closure(loss, run.loss_fn))
