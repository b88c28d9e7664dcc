"""One table of many runs, against what stands in the runs' own files."""

import csv
import re
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from make_runs import make_run
from pandas.testing import assert_frame_equal

import runner
from runner.analysis import load
from runner.errors import BadInput
from runner.runs import sweep

Call = Callable[..., list[str]]
TINY = ["dataset.size=24", "arch.depth=3", "arch.base_width=5", "device=cpu", "steps=2", "batch_size=8"]
README = Path(__file__).parents[2] / "README.md"


def texts(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


@pytest.fixture
def parquet() -> Any:
    """pyarrow's; [dev] contains it."""
    return pytest.importorskip("pyarrow.parquet")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two probes, one of which counts; replicas of which one diverges; a run that diverged."""
    folder = tmp_path_factory.mktemp("real")
    for name, overrides in {
        "a": ["width=2", "probe=split"],
        "b": ["width=3", "probe=[hessian]", "probe.hessian.every=2"],
        "c": ["width=1", "probe=split", "optimizer.lr=1e30"],
        "d": ["width=1", "replicas=2", "probe=[split,hessian]", "probe.hessian.at=[0]", "probe.hessian.ends=false"],
    }.items():
        runner.run([*TINY, *overrides, f"hydra.run.dir={folder / name}"])
    return folder


def test_real_runs(real: Path, tmp_path: Path, call: Call) -> None:
    """Every cell of every run, digit for digit, and none but these; as pandas reads it, the frame of `load`."""
    out = tmp_path / "new" / "all.csv"
    assert call("collect", real, "--out", out) == [str(out)]
    header, *rows = texts(out)
    assert header[:2] == ["run", "status"]
    assert {"width", "replicas", "optimizer.lr"} <= set(header)
    assert not {"seed", "device", "dataset.size"} & set(header)
    body = header[header.index("step") :]
    assert len(set(header)) == len(header)
    for name in "abcd":
        own_header, *own = texts(real / name / "metrics.csv")
        found = [dict(zip(header, row, strict=True)) for row in rows if row[0] == name]
        assert [[row[column] for column in own_header] for row in found] == own
        assert not any(row[column] for row in found for column in set(body) - set(own_header))
    assert len(rows) == sum(len(texts(real / name / "metrics.csv")) - 1 for name in "abcd")
    assert list(dict.fromkeys(row[0] for row in rows)) == ["c", "d", "a", "b"]  # by width, then replicas
    read = pd.read_csv(out)
    assert_frame_equal(read, load(real))
    assert (read.dtypes[["step", "replica"]] == "int64").all()
    assert not list(out.parent.glob("*.tmp"))


def test_parquet(real: Path, tmp_path: Path, call: Call, parquet: Any) -> None:
    """The numbers of the CSV; whole numbers stay whole though there are gaps; a gap differs from what is not finite."""
    call("collect", real, "--out", tmp_path / "all.csv")
    call("collect", real, "--out", tmp_path / "all.parquet")
    header, *rows = texts(tmp_path / "all.csv")
    table = parquet.read_table(tmp_path / "all.parquet")
    assert table.column_names == header
    types = {field.name: str(field.type) for field in table.schema}
    assert {types[name] for name in ("step", "replica", "hessian_H_positive", "probe.hessian.samples")} == {"int64"}
    assert {types[name] for name in ("epoch", "split_gHg", "test_loss", "width")} == {"double"}
    assert {types[name] for name in ("run", "status", "probe.hessian.matrices")} == {"string"}
    texts_of = {"int64": str, "double": lambda text: repr(float(text)), "string": str, "bool": str}
    for number, name in enumerate(header):
        wanted = [row[number] and texts_of[types[name]](row[number]) for row in rows]
        assert ["" if cell is None else str(cell) for cell in table[name].to_pylist()] == wanted
    norms = [
        norm
        for run, norm in zip(*(table[name].to_pylist() for name in ("run", "grad_norm")), strict=True)
        if run == "c"
    ]
    assert None not in norms
    assert not np.isfinite(norms).all()
    frame = pd.read_parquet(tmp_path / "all.parquet")
    assert_frame_equal(frame.fillna(np.nan), load(real), check_dtype=False, rtol=1e-14)


def test_types_are_those_of_all_runs(tmp_path: Path, call: Call, parquet: Any) -> None:
    """However many row groups they fill: a column may be empty at first, or whole, or numbers before there is text."""
    tables = [
        "step,replica,late,mixed,text,never,truth\n0,0,,1,5,,True\n",
        "step,replica,late,mixed,text,never,truth\n0,0,3,2,x,,\n",
        "step,replica,late,mixed,text,never,truth\n0,0,4,nan,nan,,False\n",
        "step,replica,late,mixed,text,never,truth\n0,0,,,,,\n",
    ]
    for seed, table in enumerate(tables):
        make_run(tmp_path / "sweep" / f"{seed}", {"seed": seed}, table)
    (out,) = call("collect", tmp_path / "sweep", "--out", tmp_path / "all.parquet")
    table = parquet.read_table(out)
    kinds = {"late": "int64", "mixed": "double", "text": "string", "never": "double", "truth": "bool"}
    assert {name: str(table.schema.field(name).type) for name in kinds} == kinds
    assert table["late"].to_pylist() == [None, 3, 4, None]
    assert repr(table["mixed"].to_pylist()) == "[1.0, 2.0, nan, None]"
    assert table["text"].to_pylist() == ["5", "x", "nan", None]


def test_a_file_that_changes_meanwhile(tmp_path: Path, parquet: Any) -> None:
    """As that of a run that is started again does: no other type comes into a column."""
    from runner.parquet import schema, write

    run = make_run(tmp_path / "a", {}, "step,replica,x\n0,0,1\n")
    found = sweep(tmp_path)
    rows = found.runs[0].rows
    assert rows is not None
    types = schema(found, [(0, found.runs[0], rows)])
    (run / "metrics.csv").write_text("step,replica,x\n0,0,a\n")
    with (tmp_path / "x").open("wb") as file, pytest.raises(BadInput, match="should stay as it is while it is read"):
        write(found, types, [(0, found.runs[0], rows)], file)


def test_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call, parquet: Any) -> None:
    monkeypatch.setattr("runner.parquet.CELLS", 12)
    for seed in range(5):
        make_run(tmp_path / "sweep" / f"{seed}", {"seed": seed})
    many = "step,replica,train_loss\n0,0,nan\n0,1,1\n1,1,1\n"
    make_run(tmp_path / "sweep" / "5", {"seed": 5}, many, "running", {0: "diverged", 1: "running"})
    (out,) = call("collect", tmp_path / "sweep", "--out", tmp_path / "all.parquet")
    assert parquet.read_metadata(out).num_row_groups == 6
    assert_frame_equal(pd.read_parquet(out), load(tmp_path / "sweep"))


def test_unfinished_runs(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are in it and marked, without a line that is cut; what is missing or no run is told on standard error."""
    folder = tmp_path / "sweep"
    head = "step,replica,train_loss\n"
    make_run(folder / "0", {"seed": 0}, f"{head}0,0,0.50\n1,0,inf\n", "diverged")
    make_run(folder / "1", {"seed": 1}, f"{head}0,0,0.25\n1,0,0.12", "running")
    make_run(folder / "2", {"seed": 2}, None, "failed")
    make_run(folder / "3", {"seed": 3}, head[:9], "running")
    make_run(folder / "4", {"seed": 4}, f"{head}0,0,\n0,1,nan\n", "finished", {0: "finished", 1: "diverged"})
    (folder / "notes").mkdir()
    said: list[str] = []
    monkeypatch.setattr(
        "builtins.print", lambda *words, file=sys.stdout: said.append(f"{file is sys.stderr:d} {words[0]}")
    )
    call("collect", folder)
    out = tmp_path / "sweep-metrics.csv"  # beside the sweep, by default
    assert out.read_text() == (
        "run,status,seed,step,replica,train_loss\n"
        "0,diverged,0,0,0,0.50\n"
        "0,diverged,0,1,0,inf\n"
        "1,running,1,0,0,0.25\n"
        "4,finished,4,0,0,\n"
        "4,diverged,4,0,1,nan\n"
    )
    assert said == [
        "1 collect: 5 runs (2 running, 1 diverged, 1 failed, 1 finished), 5 rows",
        "1 collect: without metrics.csv: 1 failed, 1 running (2, 3)",
        "1 collect: last line cut in the middle and left out: 1",
        "1 collect: skipped, no runs: notes",
        f"0 {out}",
    ]


def test_columns_in_another_order(tmp_path: Path, call: Call) -> None:
    """Each cell stays below its name, also of replicas, and the quotes of a list's text are a CSV's."""
    make_run(tmp_path / "s" / "a", {"on": ["p", "q"]}, "step,replica,x\n0,0,1\n")
    make_run(tmp_path / "s" / "b", {"on": []}, "replica,y,step\n0,2,5\n1,3,5\n", "finished", {1: "diverged"})
    make_run(tmp_path / "s" / "c", {"on": ["q"]}, "y,x,replica,step\n4,3,0,7\n")
    (out,) = call("collect", tmp_path / "s")
    assert texts(Path(out)) == [
        ["run", "status", "on", "step", "replica", "x", "y"],
        ["a", "finished", '["p", "q"]', "0", "0", "1", ""],
        ["c", "finished", '["q"]', "7", "0", "3", "4"],
        ["b", "finished", "[]", "5", "0", "", "2"],
        ["b", "diverged", "[]", "5", "1", "", "3"],
    ]


def test_another_table_and_columns_on_request(real: Path, tmp_path: Path, call: Call) -> None:
    (out,) = call(
        "collect", real, "--table", "hessian", "--config", "dataset.size", "seed", "--out", tmp_path / "h.csv"
    )
    frame = pd.read_csv(out, low_memory=False)
    assert set(frame["run"]) == {"b", "d"}
    assert set(frame["dataset.size"]) == {24}
    assert list(frame.columns[-6:]) == ["step", "replica", "matrix", "index", "value", "on"]
    assert_frame_equal(frame, load(real, "hessian", ["seed", "dataset.size"]))


def test_replaced_as_a_whole(tmp_path: Path, call: Call, refused: Callable[..., str]) -> None:
    """By a table, or not at all."""
    out = tmp_path / "all.csv"
    make_run(tmp_path / "s" / "a", {"seed": 0})
    call("collect", tmp_path / "s", "--out", out)
    before = out.read_bytes()
    make_run(tmp_path / "s" / "b", {"seed": 1}, "step,replica\n0,0\n1\n")
    said = refused("collect", tmp_path / "s", "--out", out)
    assert "metrics.csv should have 2 cells in each line, found '1'" in said
    assert out.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.csv", "s"]
    (tmp_path / "s" / "b" / "metrics.csv").write_text("step,replica\n0,0\n")
    call("collect", tmp_path / "s", "--out", out)
    assert len(pd.read_csv(out)) == 3


ROWS = "step,replica,train_loss,grad_norm\n" + "".join(f"{i},0,{i / 7!r},{i / 3!r}\n" for i in range(1000))


def sweep_of(runs: int, folder: Path) -> Path:
    for seed in range(runs):
        make_run(folder / f"{runs}" / f"{seed}", {"seed": seed}, ROWS)
    return folder / f"{runs}"


def test_memory_does_not_grow_with_the_runs(tmp_path: Path, call: Call) -> None:
    peaks = []
    for runs in (2, 20, 200):  # all modules are there after the first
        folder = sweep_of(runs, tmp_path)
        tracemalloc.start()
        call("collect", folder)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < peaks[1] + len(ROWS)  # those of one run
    assert peaks[2] < 200 * len(ROWS) / 10


def test_memory_of_parquet(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch, parquet: Any) -> None:
    """Arrow counts its own."""
    import pyarrow

    monkeypatch.setattr("runner.parquet.CELLS", 10_000)
    peaks, before = [], pyarrow.default_memory_pool()
    for runs in (20, 200):
        folder = sweep_of(runs, tmp_path)
        pool = pyarrow.proxy_memory_pool(before)
        pyarrow.set_memory_pool(pool)
        try:
            call("collect", folder, "--out", tmp_path / "all.parquet")
        finally:
            pyarrow.set_memory_pool(before)
        peaks.append(pool.max_memory())
    assert peaks[0] > 0
    assert peaks[1] < peaks[0] + len(ROWS)
    assert parquet.read_metadata(tmp_path / "all.parquet").num_rows == 200_000


def test_help(call: Call, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        call("collect", "--help")
    assert stopped.value.code == 0
    assert "--table" in capfd.readouterr().out


def test_refusals(tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "s" / "a", {"seed": 0})
    assert "should be a run's folder or hold some, found no such folder" in refused("collect", tmp_path / "x")
    (tmp_path / "empty").mkdir()
    assert "found no meta.json of a run" in refused("collect", tmp_path / "empty")
    assert "should have epochs.csv, found metrics.csv" in refused("collect", tmp_path / "s", "--table", "epochs")
    assert "width should be a dotted key" in refused("collect", tmp_path / "s", "--config", "width")
    assert "should end in .csv or .parquet, found x.txt" in refused("collect", tmp_path / "s", "--out", "x.txt")
    own = run / "metrics.csv"
    assert "outside of the runs' folders" in refused("collect", tmp_path / "s", "--out", own)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "needs pyarrow (extra [plot])" in refused("collect", tmp_path / "s", "--out", tmp_path / "x.parquet")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "s"]


def test_what_cannot_be_written(tmp_path: Path, call: Call, capfd: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "s" / "a", {"seed": 0})
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as stopped:
        call("collect", tmp_path / "s", "--out", tmp_path / "file" / "x.csv")
    assert stopped.value.code == 1
    assert "x.csv cannot be written" in capfd.readouterr().err


def test_the_readmes_plot(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for width in (1, 2):
        runner.run([*TINY, f"width={width}", "name=first"])
    call("collect", "outputs/first")
    section = README.read_text().split("### One table of a sweep")[1]
    code = re.findall(r"```python\n(.*?)```", section, re.DOTALL)[0]
    assert len(code.splitlines()) == 3
    exec(code, {"pd": pd})
    assert (tmp_path / "first.png").stat().st_size > 10_000
