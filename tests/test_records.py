"""CSV cells, tables that can be cut back, epochs, checkpoints."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from runner import checkpoint
from runner.epochs import statistics
from runner.errors import BadInput
from runner.records import Table, text


def test_cells_give_the_number_back_in_its_own_precision() -> None:
    for dtype in (torch.float32, torch.float64):
        for value in torch.randn(100, dtype=dtype) * 10.0 ** torch.arange(-50, 50, dtype=dtype).clamp(-30, 30):
            assert torch.tensor(float(text(value)), dtype=dtype) == value
    assert text(None) == ""
    assert text(torch.tensor(float("nan"))) == "nan"
    assert text(torch.tensor(-float("inf"))) == "-inf"
    assert text(3) == "3"
    assert text(0.1) == "0.1"


def test_pandas_tells_not_measured_from_not_finite(tmp_path: Path) -> None:
    table = Table(tmp_path / "t.csv", ["a", "b", "c"])
    table.start()
    table.add({"a": 1, "c": torch.tensor(float("nan"))})
    table.flush()
    frame = pd.read_csv(tmp_path / "t.csv", keep_default_na=False)
    assert frame["b"][0] == ""
    assert str(frame["c"][0]) == "nan"


def test_a_table_grows_by_whole_rows_and_is_cut_back(tmp_path: Path) -> None:
    table = Table(tmp_path / "t.csv", ["a", "b"])
    table.start()
    table.add({"a": 1})
    size = table.flush()
    table.add({"b": 2.5})
    table.flush()
    assert (tmp_path / "t.csv").read_text() == "a,b\n1,\n,2.5\n"
    again = Table(tmp_path / "t.csv", ["a", "b"])
    again.start(size)
    again.add({"a": 7, "b": 8})
    again.flush()
    assert (tmp_path / "t.csv").read_text() == "a,b\n1,\n7,8\n"
    with pytest.raises(KeyError, match="no column"):
        again.add({"x": 1})
    with pytest.raises(BadInput, match="at least the 1000 bytes"):
        again.start(1000)


def test_statistics_equal_those_of_pandas() -> None:
    values = np.random.default_rng(0).standard_normal(37)
    found = {name: cells[0] for name, cells in statistics(np.array([[*values, float("nan")]])).items()}
    series = pd.Series(values)
    assert found["count"] == 37
    expected = {"mean": series.mean(), "std": series.std(), "negative": (series < 0).mean()}
    expected |= {f"q{int(100 * q):02d}": series.quantile(q) for q in (0.05, 0.25, 0.5, 0.75, 0.95)}
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-12)
    several = statistics(np.stack([values, values + 1]))
    assert several["mean"] == pytest.approx([series.mean(), series.mean() + 1], rel=1e-12)
    nothing = statistics(np.zeros((2, 0)))
    assert nothing["count"] == [0, 0]
    assert nothing["mean"] == [None, None]
    assert statistics(np.array([[1.0]]))["std"] == [None]


def test_a_broken_checkpoint_falls_back_to_the_one_before(tmp_path: Path) -> None:
    assert checkpoint.load(tmp_path) == (None, [])
    for step in (1, 2):
        checkpoint.save(tmp_path, {"step": step, "weights": torch.arange(1000.0)})
    state, complaints = checkpoint.load(tmp_path)
    assert state is not None
    assert state["step"] == 2
    assert not complaints
    good = (tmp_path / checkpoint.NAME).read_bytes()
    for broken in (good[: len(good) // 2], good[:2000] + bytes([good[2000] ^ 1]) + good[2001:], b""):
        (tmp_path / checkpoint.NAME).write_bytes(broken)
        state, complaints = checkpoint.load(tmp_path)
        assert state is not None
        assert state["step"] == 1
        assert len(complaints) == 1


def test_a_checkpoint_that_carries_code_is_not_loaded(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return print, ("owned",)

    buffer = io.BytesIO()
    torch.save({"step": Evil()}, buffer)
    (tmp_path / checkpoint.NAME).write_bytes(buffer.getvalue())
    state, complaints = checkpoint.load(tmp_path)
    assert state is None
    assert len(complaints) == 1
