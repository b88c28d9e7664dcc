"""Disks that are full, limited or read-only."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fork_server import ForkServer
from surviving import LONG, SMALL, run_in, same, sentence, status


@contextmanager
def disk(path: Path, size: str) -> Iterator[Callable[[str], None]]:
    """A file system of its own, and a function that changes its options. Skips where that may not be made."""
    path.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"a file system of its own cannot be mounted here: {made.stderr.strip()}")
    try:
        yield lambda options: subprocess.run(["mount", "-o", f"remount,{options}", path], check=True) and None
    finally:
        subprocess.run(["umount", path], check=True)


def check_full(folder: Path, said: Path, code: int, reason: str) -> None:
    text = said.read_text()
    assert code == 1, text
    (line,) = [line for line in text.splitlines() if line.startswith("runner: ")]
    assert line.startswith(f"runner: {folder}")
    assert f"cannot be written: {reason}; make room and start again" in line
    assert not list(folder.rglob("*.tmp"))
    if (folder / "status.json").exists() and status(folder)["status"] != "running":  # it may have had no room either
        assert status(folder)["status"] == "failed"
        assert reason in status(folder)["reason"]


@pytest.mark.parametrize("size", ["4k", "32k", "48k"])
def test_a_full_disk(server: ForkServer, tmp_path: Path, undisturbed: Path, size: str) -> None:
    said = tmp_path / "said"
    with disk(tmp_path / "disk", size) as remount:
        folder = tmp_path / "disk" / "run"
        run = [*LONG, "steps=9", f"hydra.run.dir={folder}"]
        check_full(folder, said, server(run, said), "the disk is full")
        remount("size=10m")
        assert server(run, said) == 0
        same(folder, undisturbed)


@pytest.mark.parametrize(("size", "name"), [(0, ""), (7000, "checkpoint.pt")])
def test_a_limit_on_files(server: ForkServer, tmp_path: Path, undisturbed: Path, size: int, name: str) -> None:
    said, folder = tmp_path / "said", tmp_path / "run"
    run = [*LONG, "steps=9", f"hydra.run.dir={folder}"]
    assert server(run, Path(os.devnull), ["limit_files", size]) == 1
    assert not list(folder.rglob("*.tmp"))
    if name:
        reason = f"CannotWrite: {folder / name} cannot be written: it would exceed the limit on the size of a file; "
        assert status(folder)["status"] == "failed"
        assert status(folder)["reason"].startswith(reason)
    assert server(run, said) == 0, said.read_text()
    same(folder, undisturbed)


@pytest.mark.parametrize("how", ["permissions", "mount"])
def test_a_read_only_folder_is_refused(server: ForkServer, tmp_path: Path, how: str) -> None:
    said = tmp_path / "said"
    with disk(tmp_path / "disk", "10m") if how == "mount" else nothing(tmp_path / "disk") as remount:
        folder = tmp_path / "disk" / "run"
        run_in(folder, *SMALL, "steps=2")
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        if how == "mount":
            remount("ro")
        folder.chmod(0o555) if how == "permissions" else None
        for steps in (2, 4):
            said.unlink(missing_ok=True)
            assert server([*SMALL, f"steps={steps}", f"hydra.run.dir={folder}"], said) == 2
            assert str(folder) in sentence(said)
            assert "cannot be written" in sentence(said)
        if how == "mount":
            said.unlink()
            assert server([*SMALL, "steps=2", f"hydra.run.dir={folder.with_name('new')}"], said) == 2
            assert "cannot be written" in sentence(said)
        assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        folder.chmod(0o755) if how == "permissions" else None


@contextmanager
def nothing(path: Path) -> Iterator[Callable[[str], None]]:
    path.mkdir()
    yield lambda options: None
