"""What a run or a sweep will cost, before a cluster's week is spent on it: a few steps of each distinct job."""

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import torch
from omegaconf import DictConfig
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch.utils._pytree import tree_leaves

from runner import (
    config,  # noqa: F401  (the resolvers, in a process of its own)
    scaling,
)
from runner.build import build
from runner.epochs import columns as epoch_columns
from runner.errors import BadInput
from runner.evaluate import evaluate
from runner.experiment import Experiment
from runner.identity import identity
from runner.left import share_left
from runner.measure import Measurement
from runner.probe.base import Probe
from runner.progress import COLUMNS, probe_columns
from runner.settings import settings
from runner.stopwatch import Costs
from runner.train import State, look, update

STEPS = 3  # timed, after one to warm up
REPEATS = 4  # of each probe
LONG_SECONDS = 60.0  # after which it is not repeated
CELL_BYTES = 12  # of a CSV
BANDWIDTH = 50e9  # bytes a second between the devices of one run, assumed
DEVICES = (1, 2, 4, 8, 16, 64)


@dataclass(frozen=True)
class Estimate:
    """Of one job. Seconds are those of the whole run; bytes of memory are the process's peak on the CPU, the
    allocator's on cuda."""

    parameters: int
    steps: int
    steps_per_epoch: int
    training_seconds: float
    probe_seconds: float
    evaluation_seconds: float
    memory_bytes: int
    memory_bytes_with_probes: int
    disk_bytes: int

    @property
    def seconds(self) -> float:
        return self.training_seconds + self.probe_seconds + self.evaluation_seconds


Found = Estimate | BadInput | None  # None: its process was killed, as it is where memory ends


def estimate(cfg: DictConfig) -> Estimate:
    """Build the job, time a few of its steps and each of its probes, and count. Nothing is written."""
    with settings(cfg):
        run = build(cfg)
        run.model.train()
        costs = Costs(list(run.probes), run.device)
        reset_peak(run.device)
        for step in range(STEPS + 1):
            state = look(run, step, costs if step else Costs([], run.device))
            seconds = timed(lambda state=state: update(run, state), run.device)  # type: ignore[misc]
        step_seconds = costs.training.seconds() / STEPS + seconds
        evaluations = max(1, -(-run.steps // run.eval_every)) if run.batches.has_test else 0
        evaluation = timed(lambda: evaluate(run), run.device) if evaluations else 0.0
        memory = peak(run.device)
        own = {} if run.schedule.measures is None else {"schedule": run.schedule.measures}
        probes = {
            n: (*probe_cost(run, n, p, state), p.cadence.count(run.batches.steps_per_epoch, run.steps))
            for n, p in {**run.probes, **own}.items()
        }
        parameters = sum(p.numel() for p in run.model.parameters()) // len(run.networks.ids)
        return Estimate(
            parameters=parameters,
            steps=run.steps,
            steps_per_epoch=run.batches.steps_per_epoch,
            training_seconds=step_on(cfg.devices, step_seconds, parameters) * (run.steps + 1),
            probe_seconds=sum(step_on(cfg.devices, one, parameters) * times for one, _, times in probes.values()),
            evaluation_seconds=evaluation * evaluations / cfg.devices,
            memory_bytes=memory,
            memory_bytes_with_probes=peak(run.device),
            disk_bytes=disk_bytes(run, max((probes[name][2] for name in run.probes), default=0))
            + sum(added * times for _, added, times in probes.values()),
        )


def step_on(devices: int, seconds: float, parameters: int) -> float:
    """What takes so long here, on one device, with the batch divided among several, on paper."""
    return scaling.step_seconds(seconds, parameters, devices, BANDWIDTH)


def probe_cost(run: Experiment, name: str, probe: Probe, state: State) -> tuple[float, int]:
    """The seconds of one measurement, of all networks: the shortest of several, since the first ones may compile; g is
    in place. And the bytes that it writes beside its row: those of its own table, and of its files."""
    added = 0

    def measure() -> None:
        nonlocal added
        added = 0
        for rows in run.networks.parts():
            at = Measurement(run, state.step, state.batch, state.lr, rows, state.buffers)
            at.cells(name, probe)
            if probe.table:
                found = tree_leaves(list(at.rows(name, probe)))
                added += CELL_BYTES * sum(cell.numel() if torch.is_tensor(cell) else 1 for cell in found)
            for _, content in at.files(name, probe):
                added += sum(leaf.nbytes for leaf in tree_leaves(content))

    taken: list[float] = []
    while len(taken) < REPEATS and sum(taken) < LONG_SECONDS:
        taken.append(timed(measure, run.device))
    return min(taken), added


def disk_bytes(run: Experiment, measured: int) -> int:
    """metrics.csv, epochs.csv and two checkpoints."""
    recorded, epochs = max(measured, run.steps // run.log_every + 1), run.steps // run.batches.steps_per_epoch
    if run.networks.stacked:
        epochs = min(epochs, recorded)  # others are not written
    rows, epochs = len(run.networks.ids) * recorded, len(run.networks.ids) * epochs
    cells = rows * (len(COLUMNS) + len(probe_columns(run))) + epochs * len(epoch_columns(probe_columns(run)))
    state = [*run.model.parameters(), *run.model.buffers()]
    state += [value for kept in run.optimizer.state.values() for value in kept.values() if torch.is_tensor(value)]
    return CELL_BYTES * cells + 2 * sum(one.numel() * one.element_size() for one in state)


def timed(call: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif os.path.exists("/proc/self/clear_refs"):
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again from here


def peak(device: torch.device) -> int:
    """Bytes since `reset_peak`; 0 where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


@dataclass(frozen=True)
class Group:
    """Jobs that differ in nothing but the seed: the first one's config and name, and what is left of each, as a share
    of its steps."""

    cfg: DictConfig
    name: str
    left: list[float]


def distinct(cfgs: Sequence[DictConfig], names: Sequence[str], folders: Sequence[Path]) -> list[Group]:
    """The jobs by what they differ in beside the seed."""
    found: dict[str, Group] = {}
    for cfg, name, folder in zip(cfgs, names, folders, strict=True):
        key = repr({**identity(cfg), "seed": None, "epochs": cfg.epochs, "steps": cfg.steps, "device": cfg.device})
        found.setdefault(key, Group(cfg, name, [])).left.append(share_left(cfg, folder))
    return list(found.values())


HEADINGS = (
    "\nruns",
    "\nparameters",
    "GiB of\nmemory",
    "with\nprobes",
    "s /\nepoch",
    "hours\na run",
    "in\nprobes",
    "MiB of\ndisk",
)


def table(groups: Sequence[Group], estimates: Sequence[Found]) -> Table:
    """What each distinct job costs, done or not."""
    shown = Table(title="what it will cost", box=SIMPLE_HEAD, padding=0, show_edge=False)
    shown.add_column("job", overflow="fold", min_width=12)
    for heading in HEADINGS:
        shown.add_column(heading, justify="right", no_wrap=True)
    for group, one in zip(groups, estimates, strict=True):
        first = (escape(group.name), f"{len(group.left)}")
        if not isinstance(one, Estimate):
            shown.add_row(*first, "refused" if one else "killed")
            continue
        epochs = max(one.steps, 1) / one.steps_per_epoch
        shown.add_row(
            *first, f"{one.parameters:,}", f"{one.memory_bytes / 2**30:.2f}",
            f"{one.memory_bytes_with_probes / 2**30:.2f}", f"{one.seconds / epochs:.3g}", f"{one.seconds / 3600:.3g}",
            f"{one.probe_seconds / one.seconds:.0%}", f"{one.disk_bytes / 2**20:,.1f}",
        )  # fmt: skip
    return shown


def totals(estimates: Sequence[Estimate], left: Sequence[Sequence[float]]) -> str:
    """Hours of all runs, on one device and on several, where the longest run is the least that it can take; and of what
    is left of them."""
    if not estimates:
        return "no job could be measured"
    whole = [(one.seconds / 3600, share) for one, shares in zip(estimates, left, strict=True) for share in shares]
    disk = sum(one.disk_bytes * len(shares) for one, shares in zip(estimates, left, strict=True)) / 2**30
    said = f"{runs(len(whole))}, {disk:.2g} GiB on disk; hours in all, by the number of devices: "
    said += hours([taken for taken, _ in whole])
    rest = [taken * share for taken, share in whole if share > 0]
    if sum(share for _, share in whole) < len(whole):
        said += f"\nleft to do: {runs(len(rest))}" + (f", hours: {hours(rest)}" if rest else "")
    return said


def hours(each: Sequence[float]) -> str:
    """Of runs that take so long each, side by side."""
    return ", ".join(f"{max(sum(each) / n, max(each)):.3g} on {n}" for n in DEVICES if n <= len(each))


def runs(count: int) -> str:
    return f"{count} run{'s' * (count != 1)}"


def in_a_process(cfg: DictConfig) -> Found:
    """In one of its own, since memory is that of a process."""
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as process:
        try:
            return process.submit(estimate, cfg).result()
        except BrokenProcessPool:
            return None
        except BadInput as error:
            return error


def show(cfgs: Sequence[DictConfig], names: Sequence[str], folders: Sequence[Path], console: Console) -> None:
    """Measure each distinct job, and print what it costs, and what all of them do, and those that are not yet done in
    their folders. Raises BadInput, after that, where a job would be refused."""
    groups = distinct(cfgs, names, folders)
    estimates = [in_a_process(group.cfg) for group in groups]
    found = list(zip(groups, estimates, strict=True))
    refused = [(group.name, one) for group, one in found if isinstance(one, BadInput)]
    if len(refused) == len(groups):
        raise refused[0][1]
    console.print(table(groups, estimates))
    known = [(one, group.left) for group, one in found if isinstance(one, Estimate)]
    console.print(totals([one for one, _ in known], [left for _, left in known]))
    if killed := sum(len(group.left) for group, one in found if one is None):
        console.print(f"not counted: {runs(killed)} whose process the system killed, as it does where memory ends")
    if refused:
        name, error = refused[0]
        more = f" (and {len(refused) - 1} more of the rows above)" if len(refused) > 1 else ""
        raise BadInput(f"{name}: {error}{more}")
