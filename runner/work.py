"""The work of a run, apart from its records: it is built, and then it trains."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from omegaconf import DictConfig

from runner.build import build
from runner.cells import Cells
from runner.curvature import randomness
from runner.ending import Ended
from runner.experiment import Experiment
from runner.folder import RunFolder
from runner.knobs import device_of
from runner.progress import Progress
from runner.provenance import meta
from runner.ranks import ALONE, Ranks
from runner.records import Mark, Table
from runner.settings import settings
from runner.stopwatch import Costs, Spent
from runner.train import Hooks, train

Stop = Callable[[], str]  # the name of the signal that asks for an end, if one does
Show = Callable[[int, Cells], None]  # is told what was measured at a step


class Outcome(NamedTuple):
    """How a run ended, and each replica of it; how long it trained, and what it spent the time on."""

    ended: Ended
    replicas: list[dict[str, Any]]
    seconds: float
    spent: Spent


class Work(Protocol):
    """A run that is built, of so many `steps` in all. `meta` is the fixed part of its meta.json."""

    steps: int
    meta: dict[str, Any]

    def train(self, folder: RunFolder, state: dict[str, Any] | None, stop: Stop, show: Show) -> Outcome:
        """Go on from a checkpoint's `state`, or from the start, to the end; tables and checkpoints go to `folder`."""
        ...


class OneProcess:
    """The work of this process: all there is, or that of one of several ranks."""

    def __init__(self, cfg: DictConfig, ranks: Ranks = ALONE) -> None:
        self.run, self._checkpoint_seconds = build(cfg, ranks), 60 * cfg.checkpoint_minutes
        self.steps, self.meta, self._loggers = self.run.steps, meta(cfg, self.run), list(cfg.logger)

    def train(self, folder: RunFolder, state: dict[str, Any] | None, stop: Stop, show: Show) -> Outcome:
        if state:
            torch.set_num_threads(state["threads"])
        run, writes = self.run, self.run.ranks.rank == 0
        progress = Progress(run, folder.path, self._loggers) if writes else Unwritten(run)
        costs = Costs(list(run.probes), run.device)

        def save(step: int) -> None:
            if writes:
                folder.save({**progress.state(step), "threads": torch.get_num_threads()})

        progress.begin(state)
        began = time.monotonic()
        try:
            ended = train(run, progress, Hooks(save, stop, show, self._checkpoint_seconds), costs)
        finally:
            progress.flush(sync=True)
            progress.loggers.close()
        run.ranks.check_same(list(run.model.parameters()))
        return Outcome(ended, progress.replicas(ended), time.monotonic() - began, costs.spent())


@contextmanager
def one_process(cfg: DictConfig, ranks: Ranks = ALONE) -> Iterator[OneProcess]:
    """The work in this process, whose settings and generators are put back afterwards."""
    device = ranks.device(device_of(cfg.device, cfg.precision))
    with randomness.preserved(device), settings(cfg):
        yield OneProcess(cfg, ranks)


class Unwritten(Progress):
    """The progress of a rank that writes nothing. It measures all there is, since the ranks measure together."""

    def __init__(self, run: Experiment) -> None:
        super().__init__(run, Path())
        self.tables = {name: _NoTable(table.path, table.columns) for name, table in self.tables.items()}

    def add_files(self, name: str, files: Iterable[tuple[str, Any]]) -> None:
        for _ in files:
            pass

    def drop_files(self) -> None:
        pass


class _NoTable(Table):
    def start(self, mark: Mark | None = None) -> None:
        pass

    def add(self, cells: Any) -> None:
        pass

    def flush(self, sync: bool = False) -> Mark:
        return Mark(0, "")
