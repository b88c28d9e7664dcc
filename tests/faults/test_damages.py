"""Checkpoints that are damaged or another run's, and tables that were edited by hand."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from surviving import LONG, run_in, same, status

from runner import checkpoint
from runner.errors import BadInput

# Checkpoints.

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "zeros": lambda data: bytes(len(data)),
    "a bit in the middle": lambda data: flipped(data, len(data) // 2),
    "a bit of the directory": lambda data: flipped(data, data.index(b"PK\x01\x02") + 38),  # "it is a folder"
    "a bit of the seal": lambda data: flipped(data, len(data) - 1),
    "another file": lambda data: b"hello",
}


def flipped(data: bytes, at: int, bit: int = 4) -> bytes:
    return data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint(folder: Path, undisturbed: Path, capfd: pytest.CaptureFixture[str], damage: str) -> None:
    """The run falls back to the one before it, and says so."""
    damaged = DAMAGES[damage]((folder / checkpoint.NAME).read_bytes())
    (folder / checkpoint.NAME).write_bytes(damaged)
    run_in(folder, *LONG, "steps=9")
    for text in (capfd.readouterr().err, (folder / "run.log").read_text()):
        assert f"{folder / checkpoint.NAME} cannot be read (it is " in text
        assert "falling back to the one before it, at step 7" in text
    same(folder, undisturbed)


@pytest.mark.parametrize("damage", [*DAMAGES, "removed"])
def test_without_a_whole_checkpoint_nothing_is_started_over_what_is_there(folder: Path, damage: str) -> None:
    for path in (folder / checkpoint.NAME, folder / checkpoint.PREVIOUS):
        damaged = DAMAGES[damage](path.read_bytes()) if damage in DAMAGES else b""
        path.unlink() if damage == "removed" else path.write_bytes(damaged)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    found = "none" if damage == "removed" else r".*checkpoint\.pt cannot be read .*previous\.pt cannot be read .*"
    with pytest.raises(BadInput, match=f"should hold a whole checkpoint to go on from, found {found}; put one back"):
        run_in(folder, *LONG, "steps=9")
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    folder, other = run_in(tmp_path / "one", *LONG, "steps=0"), run_in(tmp_path / "other", *LONG, "steps=0", "seed=1")
    (folder / checkpoint.NAME).write_bytes((other / checkpoint.NAME).read_bytes())
    with pytest.raises(BadInput, match="should be of the config"):
        run_in(folder, *LONG, "steps=3")


class Marker:
    """Its pickle makes a file where it is read."""

    def __reduce__(self) -> tuple:
        return os.system, ("touch marker",)


def test_a_checkpoint_that_carries_code_is_not_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even a sealed one."""
    monkeypatch.chdir(tmp_path)
    buffer = io.BytesIO()
    torch.save({"step": Marker()}, buffer)
    checkpoint.seal(buffer)
    for name in (checkpoint.NAME, checkpoint.PREVIOUS):
        (folder / name).write_bytes(buffer.getvalue())
    with pytest.raises(BadInput, match="should hold a whole checkpoint"):
        run_in(folder, *LONG, "steps=9")
    assert not (tmp_path / "marker").exists()


# Tables.


def without_line(data: bytes, number: int) -> bytes:
    lines = data.splitlines(keepends=True)
    return b"".join(lines[:number] + lines[number + 1 :])


EDITS: dict[str, Callable[[bytes], bytes]] = {
    "the last line removed": lambda data: without_line(data, -1)[:-1],
    "a line removed": lambda data: without_line(data, 1),
    "a line removed, another twice": lambda data: without_line(data, 1) + data.splitlines(keepends=True)[-1],
    "a line added in front": lambda data: b"a comment\n" + data,
    "a digit": lambda data: data[:-3] + bytes([data[-3] ^ 1]) + data[-2:],
    "a column's name": lambda data: data.replace(b"step", b"Step"),
    "line ends": lambda data: data.replace(b"\n", b"\r\n"),
    "emptied": lambda data: b"",
}


@pytest.mark.parametrize("table", ["metrics", "epochs", "spectrum"])
@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_table_is_refused(folder: Path, table: str, edit: str) -> None:
    path = folder / f"{table}.csv"
    state, _ = checkpoint.load(folder)
    assert state is not None
    size = state["tables"][table][0]
    edited = EDITS[edit](path.read_bytes()[:size])
    path.write_bytes(edited)
    with pytest.raises(BadInput, match=rf"{table}\.csv should .* put (it|the file) back, or remove the run's folder"):
        run_in(folder, *LONG, "steps=9")
    assert path.read_bytes() == edited
    assert status(folder)["status"] == "finished"


def test_what_was_added_at_the_end_of_a_table_is_cut_off(folder: Path, undisturbed: Path) -> None:
    for name in ("metrics.csv", "epochs.csv", "spectrum.csv"):
        with (folder / name).open("a") as file:
            file.write("1,2,3\n4,")
    run_in(folder, *LONG, "steps=9")
    same(folder, undisturbed)


def test_without_its_status_a_run_goes_on_from_its_checkpoint(folder: Path, undisturbed: Path) -> None:
    (folder / "status.json").unlink()
    inode = (folder / "metrics.csv").stat().st_ino
    run_in(folder, *LONG, "steps=9")
    same(folder, undisturbed)
    assert (folder / "metrics.csv").stat().st_ino == inode
    assert json.loads((folder / "meta.json").read_text())["resumed"] == 1
