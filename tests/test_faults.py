"""What a run survives: deaths at any instant, full disks, damaged and edited files, company in its folder.

python -m pytest -m slow -s tests/test_faults.py      # 100 deaths at random instants, and one at every file operation
"""

import errno
import fcntl
import io
import json
import os
import random
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
import torch
from fork_server import PHASES, ForkServer

import runner
from runner import checkpoint
from runner.errors import BadInput
from runner.records import write_json

ALWAYS = "checkpoint_minutes=1e-9"  # a checkpoint at every step
SMALL = ["dataset.size=60", "arch.depth=3", "arch.base_width=6", "device=cpu", ALWAYS]
LONG = [
    *SMALL, "batch_size=20", "optimizer=adam", "probe=[split,spectrum,snapshot]", "probe.spectrum.every=3",
    "probe.snapshot.every=2",
]  # fmt: skip
SETTINGS = {
    "minibatches": [*LONG, "steps=9"],
    "replicas": [
        "dataset=blobs", "replicas=4", "until.grad_norm=0.2", "steps=30", "log_every=3", "device=cpu", ALWAYS,
        "probe=hessian", "probe.hessian.save=true", "probe.hessian.matrices=[H]",
    ],
    "convolutions": [
        "dataset=random_images", "dataset.size=50", "dataset.shape=[3,8,8]", "dataset.classes=4", "arch=resnet50",
        "arch.blocks=1", "arch.base_width=4", "batch_size=12", "optimizer=momentum", "steps=6", "log_every=1",
        "probe=split", "device=cpu", ALWAYS,
    ],
}  # fmt: skip
OF_ITS_OWN = {".lock", "meta.json", "run.log", ".hydra", checkpoint.NAME, checkpoint.PREVIOUS}  # not the same bytes


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    server = ForkServer()
    yield server
    server.close()


def run_in(folder: Path, *overrides: str) -> Path:
    return runner.run([*overrides, f"hydra.run.dir={folder}"])


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As the runs of the fork server have: the bytes depend on it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine steps of LONG."""
    return run_in(tmp_path_factory.mktemp("undisturbed") / "run", *LONG, "steps=9")


@pytest.fixture(scope="module")
def _eight_steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_in(tmp_path_factory.mktemp("eight") / "run", *LONG, "steps=8")


@pytest.fixture
def folder(_eight_steps: Path, tmp_path: Path) -> Path:
    """Eight steps of LONG, for the test to do with as it likes."""
    return Path(shutil.copytree(_eight_steps, tmp_path / "run"))


def status(folder: Path) -> dict:
    return json.loads((folder / "status.json").read_text())


def files(folder: Path) -> dict[str, bytes]:
    """All that a run leaves and that repeats, by name."""
    found = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return {str(name): path.read_bytes() for name, path in found.items() if name.parts[0] not in OF_ITS_OWN}


def same(one: Path, other: Path) -> None:
    """The same files with the same bytes, and nothing half-written."""
    found, expected = files(one), files(other)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []
    assert not [*one.rglob("*.tmp"), *other.rglob("*.tmp")]
    states = [checkpoint.load(folder) for folder in (one, other)]
    assert [complaints for _, complaints in states] == [[], []]
    assert_equal(*(state for state, _ in states))


def assert_equal(one: object, other: object) -> None:
    if isinstance(one, dict):
        assert isinstance(other, dict)
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)  # type: ignore[arg-type]
    else:
        assert one == other


def sentence(said: Path) -> str:
    """The one sentence of a run that was refused."""
    text = said.read_text()
    assert "Traceback" not in text
    assert text.startswith("runner: ")
    assert text.count("\n") == 1
    return text


# Deaths.


def die_at_random(server: ForkServer, tmp_path: Path, name: str, deaths: int) -> Counter[str]:
    """Kill runs at random instants of each phase, over and over until each comes to its end; where they were."""
    said, phase, chance, fell = tmp_path / "said", tmp_path / "phase", random.Random(name), Counter[str]()
    whole = run_in(tmp_path / "whole", *SETTINGS[name])
    wall = json.loads((whole / "meta.json").read_text())["wall_seconds"]
    for number in range(10 * deaths):
        folder, code = tmp_path / f"cut{number}", -9
        while code == -9:
            phase.write_bytes(b"\0")
            run = server.start([*SETTINGS[name], f"hydra.run.dir={folder}"], said, ["watch", str(phase)])
            aim = chance.choice(PHASES)
            if fell.total() == deaths:
                code = server.end(run)
            elif aim == "starting":
                code = server.end(run, chance.uniform(0, 1))
            else:
                code = server.end(run, chance.uniform(0, wall / 2), (str(phase), aim, chance.uniform(0, 3e-3)))
            fell[PHASES[phase.read_bytes()[0]]] += code == -9
        assert code == 0, said.read_text()
        same(folder, whole)
        if fell.total() == deaths:
            return +fell
    raise AssertionError(f"{fell.total()} deaths in {number} runs")


@pytest.mark.parametrize(("name", "deaths"), [("minibatches", 4), ("replicas", 4), ("convolutions", 2)])
def test_a_killed_run_goes_on_to_the_same_bytes(server: ForkServer, tmp_path: Path, name: str, deaths: int) -> None:
    die_at_random(server, tmp_path, name, deaths)


@pytest.mark.slow
def test_a_hundred_deaths(server: ForkServer, tmp_path: Path) -> None:
    fell = Counter[str]()
    for name, deaths in (("minibatches", 40), ("replicas", 40), ("convolutions", 20)):
        (tmp_path / name).mkdir()
        fell += die_at_random(server, tmp_path / name, name, deaths)
    print(
        f"\nkilled {fell.total()} times, all finished with the bytes of the undisturbed run; deaths while {dict(fell)}"
    )


SHORT = [*SMALL, "batch_size=20", "optimizer=adam", "steps=2", "probe=[split,spectrum,snapshot]"]


def die_at_operation(server: ForkServer, tmp_path: Path, number: int) -> bool:
    """Kill a run at its n-th operation on a file; False if it has fewer."""
    folder, said = tmp_path / f"cut{number}", tmp_path / "said"
    code = server([*SHORT, f"hydra.run.dir={folder}"], said, ["die_at", number])
    assert code in (0, -9), said.read_text()
    if code == -9:
        assert server([*SHORT, f"hydra.run.dir={folder}"], said) == 0, said.read_text()
    same(folder, tmp_path / "whole")
    return code == -9


def test_death_at_a_file_operation(server: ForkServer, tmp_path: Path) -> None:
    run_in(tmp_path / "whole", *SHORT)
    for number in random.Random(0).sample(range(1, 80), 4):
        assert die_at_operation(server, tmp_path, number)


@pytest.mark.slow
def test_death_at_every_file_operation(server: ForkServer, tmp_path: Path) -> None:
    run_in(tmp_path / "whole", *SHORT)
    number = 1
    while die_at_operation(server, tmp_path, number):
        number += 1
    assert number > 80
    print(
        f"\nkilled at each of {number - 1} file operations of a run, all finished with the bytes of the undisturbed one"
    )


# Disks.


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


# Tables that were edited by hand.


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


# Company.


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
