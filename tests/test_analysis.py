"""Frames of runs that were made by hand, and of the program's own."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from make_runs import make_run

from runner import rows, run
from runner.analysis import load
from runner.errors import BadInput
from runner.rows import Rows
from runner.runs import sweep

TINY = ["dataset.size=24", "arch.depth=3", "arch.base_width=5", "device=cpu", "steps=2", "batch_size=8"]


def test_a_run_alone_and_in_a_sweep(tmp_path: Path) -> None:
    folder = run([*TINY, "probe=split", "seed=1", f"hydra.run.dir={tmp_path / 'sweep' / 'one'}"])
    own = pd.read_csv(folder / "metrics.csv")
    alone = load(folder)
    assert list(alone.columns) == ["run", "status", *own.columns]
    assert alone[own.columns].equals(own)
    assert set(alone["run"]) == {"one"}
    assert set(alone["status"]) == {"finished"}
    run([*TINY, "probe=split", "optimizer.lr=1e30", f"hydra.run.dir={tmp_path / 'sweep' / 'two'}"])
    both = load(str(tmp_path / "sweep"))
    assert list(both.columns) == ["run", "status", "seed", "optimizer.lr", *own.columns]
    assert both["run"].drop_duplicates().tolist() == ["two", "one"]  # by seed
    assert both.loc[both["run"] == "one", own.columns].reset_index(drop=True).equals(own)
    assert both.groupby("run")["status"].unique().str[0].to_dict() == {"one": "finished", "two": "diverged"}


def test_types_of_the_configs_columns(tmp_path: Path) -> None:
    """Whole numbers, numbers, truth values and text are such; nothing is missing; a list is its text; a mixture is."""
    make_run(tmp_path / "a", {"i": 1, "f": 1, "b": True, "t": "x", "n": None, "l": [1], "m": "auto", "d": {"k": 1}})
    make_run(tmp_path / "b", {"i": 2, "f": 0.5, "b": False, "t": "y", "n": 3, "l": ["p"], "m": 3, "d": {}})
    frame = load(tmp_path).drop_duplicates("run").set_index("run")
    assert [frame[key].dtype.kind for key in "ifb"] == ["i", "f", "b"]
    assert frame["t"].to_dict() == {"a": "x", "b": "y"}
    assert np.isnan(frame["n"]["a"])
    assert frame["n"]["b"] == 3
    assert frame["l"].to_dict() == {"a": "[1]", "b": '["p"]'}
    assert frame["m"].to_dict() == {"a": "auto", "b": "3"}
    assert np.isnan(frame["d.k"]["b"])


def test_only_what_differs_and_what_is_asked_for(tmp_path: Path) -> None:
    """Where a job ran does not set it apart, nor do the two ways to write a number."""
    for number, seed in enumerate([5, 6]):
        config = {"seed": seed, "width": [1, 1.0][number], "device": f"cuda:{number}", "optimizer": {"lr": 0.1}}
        make_run(tmp_path / str(seed), {**config, "arch": {"width": seed}})  # always the width of the top level
    assert list(load(tmp_path).columns) == ["run", "status", "seed", "step", "replica", "train_loss"]
    frame = load(tmp_path, config=["optimizer.lr", "device"])
    assert list(frame.columns[2:6]) == ["seed", "device", "optimizer.lr", "step"]
    assert frame["optimizer.lr"].tolist() == [0.1] * 4
    with pytest.raises(BadInput, match="lr should be a dotted key of a run's config"):
        load(tmp_path, config=["lr"])


def test_jobs_in_the_order_of_their_values(tmp_path: Path) -> None:
    configs = [(w, net) for w in (10.0, 2.0, None) for net in ("mlp10", "mlp2")]
    for number, (width, net) in enumerate(configs):
        make_run(tmp_path / f"{number}", {"width": width, "net": net})
    frame = load(tmp_path).drop_duplicates("run")
    assert frame["net"].tolist() == ["mlp2", "mlp10"] * 3
    assert frame["width"].fillna(0).tolist() == [0, 0, 2, 2, 10, 10]


def test_columns_of_all_probes(tmp_path: Path) -> None:
    make_run(tmp_path / "a", {"s": 0}, "step,replica,fd_gHg\n0,0,1.5\n")
    make_run(tmp_path / "b", {"s": 1}, "step,replica,split_gHg,step_s\n0,0,nan,1\n1,0,,2\n")
    make_run(tmp_path / "c", {"s": 2}, "step,replica,hvp_gHg\n")
    frame = load(tmp_path)
    assert list(frame.columns[3:]) == ["step", "replica", "fd_gHg", "split_gHg", "step_s", "hvp_gHg"]
    assert frame["run"].tolist() == ["a", "b", "b"]
    assert frame["fd_gHg"].fillna(0).tolist() == [1.5, 0, 0]
    assert frame["step"].dtype == "int64"


def test_a_configs_key_named_as_a_column(tmp_path: Path) -> None:
    for number in range(2):
        make_run(tmp_path / f"{number}", {"step": number, "run": number})
    assert list(load(tmp_path).columns[:5]) == ["run", "status", "config.step", "config.run", "step"]


def test_status_of_each_replica(tmp_path: Path) -> None:
    text = "step,replica,train_loss\n0,0,1\n0,1,1\n1,1,2\n"
    make_run(tmp_path / "a", {"s": 0}, text, "finished", {0: "diverged", 1: "finished"})
    make_run(tmp_path / "b", {"s": 1}, text, "running")
    make_run(tmp_path / "c", {"s": 2}, text, None)
    expected = ["diverged", "finished", "finished", *["running"] * 3, *["unknown"] * 3]
    assert load(tmp_path)["status"].tolist() == expected


@pytest.mark.parametrize("end", ["1,0,0.2", "1,", "1"])
def test_a_torn_line_is_left_out(tmp_path: Path, end: str) -> None:
    make_run(tmp_path / "a", {}, f"step,replica,train_loss\n0,0,0.25\n{end}", "running")
    frame = load(tmp_path)
    assert frame["train_loss"].tolist() == [0.25]
    assert frame["step"].dtype == "int64"


def test_no_rows_yet(tmp_path: Path) -> None:
    make_run(tmp_path / "a", {"seed": 0}, "step,replica,train_loss\n", "running")
    make_run(tmp_path / "b", {"seed": 1}, "step,repl", "running")
    frame = load(tmp_path)
    assert len(frame) == 0
    assert list(frame.columns) == ["run", "status", "seed", "step", "replica", "train_loss"]


def test_rows_as_they_were_at_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not what is written later; the same in blocks of any size."""
    path = tmp_path / "t.csv"
    lines = [f"{i},{'x' * (i % 7)}\n" for i in range(30)]
    path.write_text("a,b\n" + "".join(lines))
    found = Rows.of(path)
    assert found is not None
    path.write_text(path.read_text() + "30,later\n")
    for size in (1, 5, 64, 1000):
        monkeypatch.setattr(rows, "BLOCK", size)
        assert b"".join(found.blocks()).decode() == "".join(lines)


@pytest.mark.parametrize("line", ["1,0", "1,0,2,3"])
def test_a_line_of_another_length(tmp_path: Path, line: str) -> None:
    make_run(tmp_path / "a", {}, f"step,replica,train_loss\n{line}\n2,0,1\n")
    with pytest.raises(BadInput, match=rf"metrics\.csv should have 3 cells in each line, found '{line}'"):
        load(tmp_path)


def test_which_folders_are_runs(tmp_path: Path) -> None:
    """Those with a meta.json; folders of one name are told apart by their paths."""
    make_run(tmp_path / "fig" / "x", {"seed": 0})
    make_run(tmp_path / "copy" / "x", {"seed": 0})
    make_run(tmp_path / "fig" / ".submitit" / "y", {"seed": 0})
    (tmp_path / "fig" / "notes" / "old").mkdir(parents=True)
    (tmp_path / "fig" / "torn").mkdir()
    (tmp_path / "fig" / "torn" / "meta.json").write_text('{"config"')
    found = sweep(tmp_path)
    assert [one.name for one in found.runs] == ["copy/x", "fig/x"]
    assert [path.name for path in found.strays] == ["notes", "torn"]


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nowhere should be a run's folder or hold some, found no such folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(BadInput, match=r"found no meta\.json of a run"):
        load(tmp_path)
    make_run(tmp_path / "a", {}, hessian="step,replica\n")
    with pytest.raises(BadInput, match=r"should have epochs\.csv, found hessian\.csv, metrics\.csv"):
        load(tmp_path, "epochs")


def test_another_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path / "a", {}, hessian="step,replica,matrix,value\n0,0,H,0.5\n")
    monkeypatch.chdir(tmp_path / "a")
    frame = load(".", "hessian")
    assert frame.to_numpy().tolist() == [["a", "finished", 0, 0, "H", 0.5]]
