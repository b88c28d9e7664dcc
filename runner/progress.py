"""How far a run is and what it has recorded: the part of its state that is not the network's."""

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from runner import epochs, updating, writing
from runner.cells import Cell, Cells
from runner.ending import Ended, together
from runner.experiment import Experiment
from runner.kept import parsed
from runner.logger import Loggers
from runner.records import Mark, Table, write_file

COLUMNS = ("step", "epoch", "replica", "lr", "train_loss", "train_error", "test_loss", "test_error", "grad_norm")
FLUSH_SECONDS = 1.0


def probe_columns(run: Experiment) -> list[str]:
    """The columns of all probes, prefixed by their names."""
    return [f"{name}_{column}" for name, probe in run.probes.items() for column in probe.all_columns(run.mixed)]


class Progress:
    """The tables of a run, the epoch under way, and the state that a checkpoint keeps of them; `loggers` get copies."""

    def __init__(self, run: Experiment, folder: Path, loggers: Sequence[str] = ()) -> None:
        self.run, self.folder, self.step, self.loggers = run, folder, 0, Loggers(loggers)
        self.probe_columns = probe_columns(run)
        self.tables = {
            "metrics": Table(folder / "metrics.csv", [*COLUMNS, *self.probe_columns]),
            "epochs": Table(folder / "epochs.csv", epochs.columns(self.probe_columns)),
        }
        for name, probe in run.probes.items():
            if probe.table:
                self.tables[name] = Table(folder / f"{name}.csv", ["step", "replica", *probe.table, "on"])
        self.epoch = epochs.Epoch(self.probe_columns)
        self.outcomes: dict[int, Ended] = {}  # of the replicas that have come to their end
        self._files: set[Path] = set()  # of probes, that are not synced yet
        self._flushed = time.monotonic()

    def begin(self, state: dict[str, Any] | None) -> None:
        """Start new tables, or go on from a checkpoint's state: what was recorded after it is cut off."""
        for name, table in self.tables.items():
            table.start(Mark(*state["tables"][name]) if state else None)
        if state:
            self.step = state["step"]
            self.outcomes = {int(one): Ended(*ended) for one, ended in state["outcomes"].items()}
            self.drop_files()
            self.run.batches.keep(state["live"])
            self.run.networks.load(state["model"], state["live"], self.run.optimizer)
            updating.restore(self.run.optimizer, state["optimizer"])
            self.epoch.load(state["epoch"])
            for name, probe in self.run.probes.items():
                probe.load(state["probes"][name])
            self.run.schedule.load(state.get("schedule", {}))
        self.loggers.begin(self.folder, self.step)

    def state(self, step: int) -> dict[str, Any]:
        """What a checkpoint at w_step keeps, all rows and files before `step` being on disk."""
        return {
            "step": step,
            "model": self.run.networks.state(),
            "live": self.run.networks.ids,
            "outcomes": {one: list(ended) for one, ended in self.outcomes.items()},
            "optimizer": self.run.optimizer.state_dict(),
            "epoch": self.epoch.state(),
            "probes": {name: probe.state() for name, probe in self.run.probes.items()},
            "schedule": self.run.schedule.state(),
            "tables": {name: list(mark) for name, mark in self.flush(sync=True).items()},
        }

    def add_row(self, cells: Cells, last: bool = False) -> None:
        """The row of the step, or one for each network; the `last` of a network is in no epoch."""
        self.tables["metrics"].add(cells)
        self.loggers.row(cells)
        if not last:
            self.epoch.add_row(cells)
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def add_rows(self, name: str, rows: Iterable[dict[str, Cell]]) -> None:
        """Rows of the probe's own table, if it has one."""
        if name in self.tables:
            found = list(rows)
            for row in found:
                self.tables[name].add(row)
            self.loggers.spectra(name, found)

    def add_files(self, name: str, files: Iterable[tuple[str, Any]]) -> None:
        """Files in the probe's own folder, each whole or not there."""
        for stem, content in files:
            self._files.add(write_file(self.folder / name, stem, content))

    def drop_files(self) -> None:
        """Remove the probes' files of this step and later ones: those that are due are made again. Not of networks
        that have come to their end, which measure no more."""
        for name in self.run.probes:
            for path in (self.folder / name).glob("*-step*"):
                found = parsed(path)
                if found and found.step >= self.step and found.replica not in self.outcomes:
                    path.unlink()

    def end_epoch(self, cells: Cells, rows: Sequence[int] | None = None) -> None:
        """Write the row of the epoch that ended with the step of `cells`, and begin the next; of given `rows` of the
        stack only, whose last epoch it was. Of many networks only epochs in which something was recorded are written,
        and the last one.
        """
        epoch, kept = self.epoch, ("epoch", "replica", "step", "test_loss", "test_error")
        last = rows is not None or cells["step"] == self.run.steps
        if epoch.samples and (epoch.rows or last or not self.run.networks.stacked):
            self.tables["epochs"].add(epoch.cells({key: cells[key] for key in kept if key in cells}, rows))
        if rows is None:
            self.epoch = epochs.Epoch(self.probe_columns)

    def keep(self, rows: Sequence[int]) -> None:
        """Only these rows of the stack go on."""
        self.epoch.keep(rows)

    def ended(self, step: int) -> Ended:
        """How a run ended whose networks have all come to their end."""
        return together(self.outcomes, step)

    def replicas(self, ended: Ended) -> list[dict[str, Any]]:
        """How each replica of a run ended, for status.json; nothing for a network alone."""
        if not self.run.networks.stacked:
            return []
        live = dict.fromkeys(self.run.networks.ids, ended)
        return [{"replica": one, **how._asdict()} for one, how in sorted((live | self.outcomes).items())]

    def flush(self, sync: bool = False) -> dict[str, Mark]:
        """Write all rows that wait; what is in the tables' files. `sync`: so that they and the probes' files outlast
        a power cut."""
        self._flushed = time.monotonic()
        for path in self._files | {path.parent for path in self._files} if sync else ():
            writing.sync(path)
            self._files.discard(path)
        if sync:
            self.loggers.flush()
        return {name: table.flush(sync) for name, table in self.tables.items()}
