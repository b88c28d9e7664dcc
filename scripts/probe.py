"""Measure probes afterwards, on the networks that a run kept (probe=snapshot), or on its last checkpoint.

python scripts/probe.py outputs/default/<run> probe=[spectrum] probe.spectrum.on=[dataset]
python scripts/probe.py outputs/default/<run> probe=[hvp,split] --steps 0 100 --out outputs/probed/first

Each probe measures at every step that is asked for, whatever its cadence, where its option `on` says: batch, the
training batch of that step; heldout, one disjoint from it; sample; dataset. The numbers are those that the run would
have had. metrics.csv, with a run's columns (test_loss and test_error stay empty), the probes' own tables and files, and
meta.json go into a new folder; the run stays as it is.
"""

import argparse
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import track

from runner import reload
from runner.curvature import randomness
from runner.errors import BadInput
from runner.experiment import Experiment
from runner.progress import COLUMNS, probe_columns
from runner.provenance import meta
from runner.records import Table, write_file
from runner.script import sentences
from runner.settings import settings
from runner.writing import write_json


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a run")
    parser.add_argument("overrides", nargs="+", metavar="KEY=VALUE", help="probe=[…] and probe.<name>.<key>=…")
    parser.add_argument("--steps", nargs="+", type=int, metavar="STEP", help="default: all that were kept")
    parser.add_argument("--out", type=Path, help="a new folder; default: outputs/probed/<name>/<run>/<probes>")
    parser.add_argument("--device", help="default: the run's")
    parser.add_argument("--data-root", help="where data sets lie; default: the run's")
    return parser.parse_args()


def chosen(networks: list[reload.Saved], steps: Sequence[int] | None) -> list[reload.Saved]:
    """Those of the steps; all without any."""
    kept = sorted({saved.step for saved in networks})
    if missing := [step for step in steps or () if step not in kept]:
        raise BadInput(
            f"--steps should be one of {', '.join(map(str, kept))}, which the run kept, found {missing[0]}: "
            "probe=snapshot keeps the weights of more steps"
        )
    return [saved for saved in networks if not steps or saved.step in steps]


def new_folder(path: Path) -> Path:
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise BadInput(f"--out should be a new or empty folder, found {path} with something in it")
    return path


class Records:
    """The files of the new folder. `several`: the run has replicas."""

    def __init__(self, run: Experiment, folder: Path, several: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.several = folder, several
        self.metrics = Table(folder / "metrics.csv", [*COLUMNS, *probe_columns(run)])
        own = {name: ["step", "replica", *probe.table, "on"] for name, probe in run.probes.items() if probe.table}
        self.tables = {name: Table(folder / f"{name}.csv", columns) for name, columns in own.items()}
        for table in (self.metrics, *self.tables.values()):
            table.start()

    def measure(self, run: Experiment, saved: reload.Saved) -> None:
        """Add the row of the saved network, and what the probes have beside it. As in a run, a state that is not finite
        is not probed."""
        row, at = reload.measurement(run, saved)
        finite = torch.isfinite(torch.as_tensor(row["train_loss"]) + torch.as_tensor(row["grad_norm"]))
        for name, probe in run.probes.items() if finite else ():
            row |= at.cells(name, probe)
            for entry in at.rows(name, probe) if probe.table else ():
                self.tables[name].add({**entry, "replica": saved.replica})
            for stem, content in at.files(name, probe):
                write_file(self.folder / name, f"{stem}-replica{saved.replica}" if self.several else stem, content)
        self.metrics.add(row)
        for table in (self.metrics, *self.tables.values()):
            table.flush()


def measure(cfg: DictConfig, networks: list[reload.Saved], folder: Path, source: Path) -> None:
    records: Records | None = None
    console = Console(stderr=True)
    for replica, group in groupby(networks, key=lambda saved: saved.replica):
        run = reload.experiment(cfg, replica)
        if records is None:
            records = Records(run, folder, cfg.replicas > 1)
            # without the hash, by which a run would take the folder for its own
            write_json(folder / "meta.json", {**meta(cfg, run), "hash": None, "probed": source.name})
        for saved in track(list(group), f"replica {replica}", console=console, disable=not console.is_terminal):
            with randomness.preserved(run.device):
                records.measure(run, saved)


def main() -> None:
    options = arguments()
    sys.path.insert(0, "")  # networks and probes of the user's own, where `python -m runner` finds them
    with sentences("probe"):
        cfg = reload.config(options.run, device=options.device, data_root=options.data_root)
        cfg = reload.probing(cfg, options.overrides)
        networks = chosen(reload.networks(options.run, cfg), options.steps)
        source = options.run.resolve()
        own = Path("outputs", "probed", source.parent.name, source.name, "-".join(map(str, cfg.probe)))
        folder = new_folder(options.out or own)
        with settings(cfg):
            measure(cfg, networks, folder, source)
    print(folder)


if __name__ == "__main__":
    main()
