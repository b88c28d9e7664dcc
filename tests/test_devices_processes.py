"""The processes of a run on several devices: whatever happens to one of them, or to the run, happens to all."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MLP = ["dataset.size=50", "arch.depth=3", "arch.base_width=6", "device=cpu", "precision=fp64"]


def status(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "status.json").read_text())
    return found


def started(folder: Path) -> tuple[subprocess.Popen[bytes], list[int]]:
    """`python -m runner` in mid-run, and its ranks' processes."""
    command = [sys.executable, "-m", "runner", *MLP, "steps=100000", "devices=2", f"hydra.run.dir={folder}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    table = folder / "metrics.csv"
    wait_for(lambda: table.exists() and table.stat().st_size > 1000)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return process, [int(pid) for pid in children.split()]


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


def over(pid: int) -> bool:
    """Whether the process has ended; its parent need not have taken notice."""
    path = Path(f"/proc/{pid}/stat")
    return not path.exists() or path.read_text().rpartition(")")[2].split()[0] in "XZ"


@pytest.mark.slow
def test_ranks_end_with_the_process_that_has_started_them(tmp_path: Path) -> None:
    process, ranks = started(tmp_path / "run")
    assert len(ranks) == 2
    process.kill()
    process.wait()
    wait_for(lambda: all(over(pid) for pid in ranks))
    assert status(tmp_path / "run")["status"] == "running"


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_killed_with_9(tmp_path: Path, rank: int) -> None:
    process, ranks = started(tmp_path / "run")
    os.kill(sorted(ranks)[rank], signal.SIGKILL)
    assert process.wait(60) == 1
    assert f"rank {rank} was ended by SIGKILL" in status(tmp_path / "run")["reason"]
    assert all(over(pid) for pid in ranks)


@pytest.mark.slow
def test_signals_to_the_run_and_to_all_its_processes(tmp_path: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGUSR2):
        process, ranks = started(tmp_path / number.name)
        for pid in (*ranks, process.pid):
            os.kill(pid, number)
        assert process.wait(60) == 128 + number
        assert status(tmp_path / number.name)["status"] == "interrupted"


@pytest.mark.slow
def test_in_a_sweep(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "runner", "-m", *MLP, "steps=5", "devices=2", "seed=0,1"]
    subprocess.run([*command, f"hydra.sweep.dir={tmp_path}"], check=True, capture_output=True)
    assert [status(folder.parent)["status"] for folder in tmp_path.glob("*/status.json")] == ["finished"] * 2


@pytest.mark.slow
@pytest.mark.slurm
def test_in_a_slurm_job(tmp_path: Path) -> None:
    import test_slurm as slurm  # skips, where there is no cluster

    (tmp_path / "there").mkdir()
    (tmp_path / "here").mkdir()
    assert slurm.run(tmp_path / "here", "devices=2", "seed=0,1")[0] == 0
    process = slurm.start(tmp_path / "there", *slurm.SLURM, "devices=2", "seed=0,1")
    slurm.in_mid_run(tmp_path / "there", 0, 1)
    signalled, requeued = slurm.job_ids(tmp_path / "there")
    slurm.call("scancel", "--signal=USR2", signalled)
    slurm.call("scontrol", "requeue", requeued)
    code, said = slurm.finish(process)
    assert code == 0, said
    for seed, job in enumerate((signalled, requeued)):
        one, other = (
            (slurm.run_folder(tmp_path / place, seed) / "metrics.csv").read_bytes() for place in ("here", "there")
        )
        assert one == other
        assert slurm.continued_where_it_stopped(tmp_path / "there", job)
