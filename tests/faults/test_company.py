"""Others in a run's folder, and a clock that is set back."""

import errno
import fcntl
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from fork_server import ForkServer
from surviving import LONG, SETTINGS, run_in, same, sentence, status

from runner import checkpoint
from runner.errors import BadInput
from runner.writing import write_json


def test_two_processes_on_one_folder(server: ForkServer, tmp_path: Path) -> None:
    """The second is refused; the lock of one that died is free."""
    folder, said = tmp_path / "run", tmp_path / "said"
    endless = [*LONG, "steps=1000000", f"hydra.run.dir={folder}"]
    run = server.start(endless, tmp_path / "first")
    try:
        wait_for(lambda: (folder / checkpoint.PREVIOUS).exists())
        assert server(endless, said) == 2
        assert sentence(said).startswith(f"runner: another process is running in {folder}; wait for it")
    finally:
        assert server.end(run, kill_after=0) == -9
    assert (folder / ".lock").exists()
    assert status(folder)["status"] == "running"
    state, _ = checkpoint.load(folder)
    assert state is not None
    steps = f"steps={state['step'] + 2}"
    assert server([*LONG, steps, f"hydra.run.dir={folder}"], said) == 0
    assert f"continuing at step {state['step']} of" in said.read_text()
    same(folder, run_in(tmp_path / "whole", *LONG, steps))


def test_a_lock_that_was_removed_as_it_was_taken_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by a process that was refused: another one may make a new file meanwhile, and lock that."""
    flock = fcntl.flock

    def late(descriptor: int, how: int) -> None:
        (tmp_path / "run" / ".lock").unlink()
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(BadInput, match="another process is running in"):
        run_in(tmp_path / "run", *LONG, "steps=1")


def test_a_file_system_without_locks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(BadInput, match=r"should be on a file system with locks, found one without \(No locks availa"):
        run_in(tmp_path / "run", *LONG, "steps=1")


def test_only_the_runs_own_leftovers_are_removed(folder: Path, tmp_path: Path, undisturbed: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "mine.tmp").write_text("mine")
    with pytest.raises(BadInput, match=r"should be empty or a run's folder, found mine\.tmp"):
        run_in(foreign, *LONG, "steps=1")
    assert (foreign / "mine.tmp").read_text() == "mine"
    for name in ("checkpoint.pt.tmp", "snapshot/weights-step3.pt.tmp", ".hydra/config.yaml.tmp"):
        (folder / name).write_text("half of somethi")
    run_in(folder, *LONG, "steps=9")
    same(folder, undisturbed)


def wait_for(condition: Callable[[], bool]) -> None:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < 60
        time.sleep(0.05)


@pytest.mark.parametrize("often", [True, False], ids=["checkpoints", "no checkpoints"])
def test_a_folder_removed_in_mid_run(server: ForkServer, tmp_path: Path, often: bool) -> None:
    folder, said = tmp_path / "run", tmp_path / "said"
    run = [*LONG, "steps=9", f"hydra.run.dir={folder}", *([] if often else ["checkpoint_minutes=5"])]
    assert server(run, said, ["at_step", 4, "remove", str(folder)]) == 1
    last = said.read_text().splitlines()[-1]
    assert last.startswith(f"runner: {folder}")
    assert last.endswith("cannot be written: its folder is gone, removed or renamed while it was in use")
    assert not folder.exists()


def test_a_folder_replaced_in_mid_run(server: ForkServer, tmp_path: Path, undisturbed: Path) -> None:
    """By another process that has the same run: its files are left alone, and both folders can be gone on with."""
    folder, said = tmp_path / "run", tmp_path / "said"
    run = [*LONG, "steps=9", f"hydra.run.dir={folder}"]
    assert server(run, said, ["at_step", 4, "replace", str(folder)]) == 1
    assert "was changed or replaced meanwhile" in said.read_text().splitlines()[-1]
    assert status(folder)["status"] == "running"
    assert len(pd.read_csv(folder / "metrics.csv")) <= 5
    assert server(run, said) == 0
    same(folder, undisturbed)
    original = tmp_path / "original"
    assert server([*LONG, "steps=9", f"hydra.run.dir={original}"], said) == 0
    same(original, undisturbed)


def test_another_hand_in_a_table_in_mid_run(server: ForkServer, tmp_path: Path, undisturbed: Path) -> None:
    folder, said = tmp_path / "run", tmp_path / "said"
    run = [*LONG, "steps=9", f"hydra.run.dir={folder}"]
    assert server(run, said, ["at_step", 4, "touch", str(folder)]) == 1
    assert "metrics.csv should be the file of" in said.read_text().splitlines()[-1]
    assert status(folder)["status"] == "failed"
    assert server(run, said) == 0  # what was added came after the last checkpoint, and is cut off
    same(folder, undisturbed)


def test_a_clock_that_runs_backwards(server: ForkServer, tmp_path: Path) -> None:
    whole, folder = run_in(tmp_path / "whole", *SETTINGS["replicas"]), tmp_path / "run"
    run = [*SETTINGS["replicas"], f"hydra.run.dir={folder}"]
    assert server(run, tmp_path / "said", ["clock_runs_backwards"]) == 0
    same(folder, whole)
    assert json.loads((folder / "meta.json").read_text())["wall_seconds"] > 0


def test_a_record_that_cannot_be_replaced_stays(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]
