"""Tables that can be cut back, epochs, checkpoints."""

import errno
import hashlib
import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from runner import checkpoint, writing
from runner.epochs import statistics
from runner.errors import BadInput, CannotWrite
from runner.records import Mark, Table, write_file


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
    mark = table.flush()
    table.add({"b": 2.5})
    table.flush()
    assert (tmp_path / "t.csv").read_text() == "a,b\n1,\n,2.5\n"
    again = Table(tmp_path / "t.csv", ["a", "b"])
    again.start(mark)
    again.add({"a": 7, "b": 8})
    again.flush()
    assert (tmp_path / "t.csv").read_text() == "a,b\n1,\n7,8\n"
    with pytest.raises(KeyError, match="no column"):
        again.add({"x": 1})
    with pytest.raises(BadInput, match="at least the 1000 bytes"):
        again.start(Mark(1000, ""))


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


def test_a_table_is_gone_on_with_only_if_it_is_what_a_checkpoint_knows(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    table = Table(path, ["a", "b"])
    table.start()
    table.add({"a": 1, "b": 2})
    mark = table.flush()
    good = path.read_bytes()
    assert mark == Mark(len(good), hashlib.sha256(good).hexdigest())
    path.write_bytes(good.replace(b"1", b"3"))
    with pytest.raises(
        BadInput, match=rf"the first {len(good)} bytes of .*t\.csv should be those that the run has writ"
    ):
        Table(path, ["a", "b"]).start(mark)


@pytest.mark.parametrize("change", [lambda path: path.write_bytes(b"a\n2\n"), lambda path: path.write_bytes(b"")])
def test_a_table_that_was_changed_meanwhile_is_not_written_to(tmp_path: Path, change: Callable[[Path], object]) -> None:
    path = tmp_path / "t.csv"
    table = Table(path, ["a"])
    table.start()
    change(path)
    before = path.read_bytes()
    table.add({"a": 1})
    with pytest.raises(CannotWrite, match="changed or replaced meanwhile"):
        table.flush()
    assert path.read_bytes() == before


def test_rows_that_cannot_be_written_wait_until_they_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a block is written, then the disk is full: the file has none of it, and later each row once."""
    table, write = Table(tmp_path / "t.csv", ["a"]), os.write
    table.start()

    def full(descriptor: int, data: bytes) -> int:
        if len(data) < 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data[:3])

    for number in (10, 20, 30):
        table.add({"a": number})
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(CannotWrite, match=r"t\.csv cannot be written: the disk is full; make room and start again"):
        table.flush(sync=True)
    assert (tmp_path / "t.csv").read_text() == "a\n"
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))  # a part at a time
    mark = table.flush()
    content = (tmp_path / "t.csv").read_bytes()
    assert content == b"a\n10\n20\n30\n"
    assert mark == Mark(len(content), hashlib.sha256(content).hexdigest())


def two_checkpoints(folder: Path) -> bytes:
    """Of steps 1 and 2; the last one's bytes."""
    for step in (1, 2):
        checkpoint.save(folder, {"step": step, "weights": torch.arange(60.0), "names": ["a", "b"]})
    return (folder / checkpoint.NAME).read_bytes()


def test_a_checkpoint_is_whole_or_the_one_before_it_is_taken(tmp_path: Path) -> None:
    assert checkpoint.load(tmp_path) == (None, [])
    two_checkpoints(tmp_path)
    state, complaints = checkpoint.load(tmp_path)
    assert state is not None
    assert state["step"] == 2
    assert not complaints
    (tmp_path / checkpoint.NAME).unlink()  # as between the two renames
    state, complaints = checkpoint.load(tmp_path)
    assert state is not None
    assert state["step"] == 1
    assert not complaints


def test_every_bit_of_a_checkpoint_is_protected(tmp_path: Path) -> None:
    """A zip's CRCs and torch.load leave more than a third of them, one of which turns weights into noise."""
    good = two_checkpoints(tmp_path)
    for at in range(len(good)):
        for bit in range(8):
            with pytest.raises(ValueError, match="SHA-256"):
                checkpoint.check_seal(io.BytesIO(good[:at] + bytes([good[at] ^ 1 << bit]) + good[at + 1 :]))
    for length in range(len(good)):
        with pytest.raises(ValueError, match="SHA-256"):
            checkpoint.check_seal(io.BytesIO(good[:length]))
    for more in (b"\0", good):
        with pytest.raises(ValueError, match="SHA-256"):
            checkpoint.check_seal(io.BytesIO(good + more))
    checkpoint.check_seal(io.BytesIO(good))


def test_a_sealed_checkpoint_is_an_archive_as_others_read_it(tmp_path: Path) -> None:
    two_checkpoints(tmp_path)
    assert torch.load(tmp_path / checkpoint.NAME, weights_only=True)["step"] == 2
    assert torch.load(tmp_path / checkpoint.NAME, weights_only=True, mmap=True)["weights"][3] == 3
    with zipfile.ZipFile(tmp_path / checkpoint.NAME) as archive:
        assert archive.testzip() is None
        assert archive.comment.startswith(b"sha256:")


@pytest.mark.parametrize("content", [[1, 2], {"weights": torch.ones(2)}])
def test_a_sealed_file_of_something_else_is_no_checkpoint(tmp_path: Path, content: object) -> None:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    checkpoint.seal(buffer)
    (tmp_path / checkpoint.NAME).write_bytes(buffer.getvalue())
    state, complaints = checkpoint.load(tmp_path)
    assert state is None
    assert complaints == [f"{tmp_path / checkpoint.NAME} cannot be read (it holds no state of a run)"]


def test_a_disk_that_fills_up_leaves_the_checkpoints_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, write, room = two_checkpoints(tmp_path), writing.Sink.write, [2000]

    def full(sink: writing.Sink, data: bytes) -> int:
        room[0] -= len(data)
        if room[0] < 0:
            sink.error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise sink.error
        return write(sink, data)

    monkeypatch.setattr(writing.Sink, "write", full)
    with pytest.raises(CannotWrite, match=r"checkpoint\.pt cannot be written: the disk is full; make room"):
        checkpoint.save(tmp_path, {"step": 3, "weights": torch.arange(1000.0)})
    assert {path.name for path in tmp_path.iterdir()} == {checkpoint.NAME, checkpoint.PREVIOUS}
    assert (tmp_path / checkpoint.NAME).read_bytes() == good


@pytest.mark.parametrize("content", [np.arange(1000.0), {"model": torch.arange(1000.0)}], ids=["npy", "pt"])
def test_a_probes_file_is_whole_or_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: np.ndarray | dict
) -> None:
    def full(sink: writing.Sink, data: bytes) -> int:
        sink.error = OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        raise sink.error

    with monkeypatch.context() as patch:
        patch.setattr(writing.Sink, "write", full)
        with pytest.raises(CannotWrite, match=r"some-step3\.(npy|pt) cannot be written: the disk quota is used up"):
            write_file(tmp_path / "probe", "some-step3", content)
    assert list((tmp_path / "probe").iterdir()) == []
    path = write_file(tmp_path / "probe", "some-step3", content)
    if isinstance(content, np.ndarray):
        assert np.array_equal(np.load(path), content)
    else:
        assert torch.equal(torch.load(path, weights_only=True)["model"], content["model"])
