"""What a logger is told is what the tables say; event files are read back by TensorBoard's own reader."""

import importlib.util
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import runner
from runner import train
from runner.errors import BadInput

SMALL = ["dataset.size=20", "arch.depth=2", "arch.base_width=4", "device=cpu", "logger=[tensorboard]"]


def events(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "histograms": 0})
    return found.Reload()


def check_scalars(folder: Path) -> None:
    """Each cell of metrics.csv that was measured on replica 0 is there once, and nothing else."""
    rows, found = pd.read_csv(folder / "metrics.csv"), events(folder)
    rows = rows[rows["replica"] == 0].set_index("step").drop(columns=["epoch", "replica"])
    measured = {name: column.dropna() for name, column in rows.items() if column.notna().any()}
    assert set(found.Tags()["scalars"]) == set(measured)
    for name, column in measured.items():
        logged = {event.step: event.value for event in found.Scalars(str(name))}
        assert len(found.Scalars(str(name))) == len(logged)
        assert logged == pytest.approx(column.to_dict(), rel=1e-6)


def test_scalars_are_those_of_metrics_csv(tmp_path: Path) -> None:
    folder = runner.run([*SMALL, "steps=5", "dataset.test_size=5", "eval_every=2", f"hydra.run.dir={tmp_path}"])
    check_scalars(folder)


def test_spectra_are_histograms(tmp_path: Path) -> None:
    folder = runner.run(
        [*SMALL, "steps=2", "probe=[hessian,density]", "probe.hessian.matrices=[H,G]", f"hydra.run.dir={tmp_path}"]
    )
    table, found = pd.read_csv(folder / "hessian.csv"), events(folder)
    assert set(found.Tags()["histograms"]) == {"hessian/H/batch/value", "hessian/G/batch/value"}
    for (matrix, step), rows in table.groupby(["matrix", "step"]):
        histogram = next(e for e in found.Histograms(f"hessian/{matrix}/batch/value") if e.step == step).histogram_value
        assert histogram.num == len(rows)
        assert histogram.sum == pytest.approx(rows["value"].sum(), rel=1e-6, abs=1e-6)
        assert (histogram.min, histogram.max) == pytest.approx((rows["value"].min(), rows["value"].max()), abs=1e-9)


def test_vectors_of_one_entry_are_scalars(tmp_path: Path) -> None:
    folder = runner.run([*SMALL, "steps=1", "probe=split", "probe.split.per=parameter", f"hydra.run.dir={tmp_path}"])
    table, found = pd.read_csv(folder / "split.csv"), events(folder)
    row = table.iloc[-1]
    logged = found.Scalars(f"split/{row['parameter']}/batch/gHg")
    assert logged[-1].value == pytest.approx(row["gHg"], rel=1e-6)


def test_of_replicas_the_first_is_logged(tmp_path: Path) -> None:
    more = ["replicas=3", "steps=4", "probe=hessian", "probe.hessian.matrices=[H]"]
    folder = runner.run([*SMALL, *more, f"hydra.run.dir={tmp_path}"])
    check_scalars(folder)
    table = pd.read_csv(folder / "hessian.csv")
    histogram = events(folder).Histograms("hessian/H/batch/value")[-1].histogram_value
    assert histogram.num == len(table[(table["replica"] == 0) & (table["step"] == 4)])


def test_a_continued_run_voids_what_came_after_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, steps = train.update, []

    def update(*arguments: object) -> None:
        if len(steps) == 3:
            signal.raise_signal(signal.SIGTERM)
        if len(steps) == 7:
            raise RuntimeError("power cut")  # rows after the checkpoint at step 4 are in the event file
        steps.append(1)
        original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(train, "update", update)
    command = [*SMALL, "steps=9", f"hydra.run.dir={tmp_path}"]
    with pytest.raises(KeyboardInterrupt):
        runner.run(command)
    with pytest.raises(RuntimeError, match="power cut"):
        runner.run(command)
    monkeypatch.undo()
    runner.run(command)
    check_scalars(tmp_path)
    assert len(list((tmp_path / "tensorboard").iterdir())) == 3


def test_the_record_and_the_identity_are_the_same_without(tmp_path: Path) -> None:
    given = runner.run([*SMALL, "steps=3", f"hydra.run.dir={tmp_path / 'a'}"])
    bare = runner.run([*SMALL[:-1], "steps=3", f"hydra.run.dir={tmp_path / 'b'}"])
    assert (given / "metrics.csv").read_bytes() == (bare / "metrics.csv").read_bytes()
    assert not (bare / "tensorboard").exists()
    runner.run([*SMALL[:-1], "steps=5", f"hydra.run.dir={tmp_path / 'a'}"])  # the same run, extended


def test_nothing_is_imported_unless_asked_for(tmp_path: Path) -> None:
    code = f"import runner, sys; runner.run(['steps=1', *{SMALL[:-1]}, 'hydra.run.dir={tmp_path}'])"
    code += "; assert not any(m.split('.')[0] == 'tensorboard' for m in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("names", ["[wandb]", "[tensorboard,tensorboard]"])
def test_unknown_names_are_refused(tmp_path: Path, names: str) -> None:
    with pytest.raises(BadInput, match="logger should list some of tensorboard, each once"):
        runner.run([f"logger={names}", f"hydra.run.dir={tmp_path / 'run'}"])
    assert not (tmp_path / "run").exists()


def test_what_is_not_installed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"logger: tensorboard comes with the extra \[track\]"):
        runner.run([*SMALL, f"hydra.run.dir={tmp_path / 'run'}"])
