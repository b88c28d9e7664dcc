"""Sweeps as a user runs them: one job's death is its own, and a sweep can always be run again."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from omegaconf import OmegaConf

from runner.sweep import slots_of

SMALL = ["-m", "name=s", "dataset.size=60", "arch.depth=3", "arch.base_width=6", "device=cpu", "probe=split"]

# A loss that does to its process what `fate` says, at the second step of the runs with the seed 1.
FATAL = """
import os, signal, torch
from torch import nn

class Loss(nn.Module):
    encoding = "value"
    def __init__(self, fate: str = "none", seed: int = 0):
        super().__init__()
        self.fate, self.seed, self.calls = fate, seed, 0

    def forward(self, outputs, targets):
        self.calls += 1
        if self.seed == 1 and len(outputs) > 10 and os.path.exists("outputs/s") and self.calls > 8:
            if self.fate == "exit":
                os._exit(3)
            if self.fate == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.fate == "raise":
                raise RuntimeError("the loss has had enough")
        return ((outputs - targets) ** 2).mean()
"""
MINE = ["loss=custom", "loss._target_=mine.Loss", "+loss.seed=${seed}"]


def command(*overrides: str) -> list[str]:
    return [sys.executable, "-m", "runner", *overrides]


def runner(folder: Path, *overrides: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*overrides), cwd=folder, env=env(**environment), capture_output=True, text=True, timeout=300
    )


def env(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", **more}


def rows(folder: Path) -> dict[str, pd.DataFrame]:
    return {path.parent.name: pd.read_csv(path) for path in (folder / "outputs" / "s").glob("*/metrics.csv")}


def statuses(folder: Path) -> dict[str, dict]:
    return {path.parent.name: json.loads(path.read_text()) for path in (folder / "outputs/s").glob("*/status.json")}


@pytest.mark.parametrize(
    ("fate", "why"), [("exit", "exit code 3"), ("kill", "SIGKILL"), ("raise", "the loss has had enough")]
)
def test_one_jobs_death_is_its_own(tmp_path: Path, fate: str, why: str) -> None:
    (tmp_path / "mine.py").write_text(FATAL)
    result = runner(tmp_path, *SMALL, *MINE, f"loss.fate={fate}", "steps=20", "seed=0,1,2")
    assert result.returncode == 1, result.stderr
    assert re.search(rf"seed=1 +│ failed +│ +\d+ │ .*{why}", result.stdout), result.stdout
    found = statuses(tmp_path)
    assert sorted(one["status"] for one in found.values()) == ["failed", "finished", "finished"]
    kept = [OmegaConf.load(path) for path in (tmp_path / "outputs" / "s").glob("*/.hydra/overrides.yaml")]
    given = {*SMALL[1:], f"loss.fate={fate}", "steps=20"}
    assert all(given <= set(one) for one in kept), "the table leaves out what all jobs share"
    (failed,) = (name for name, one in found.items() if one["status"] == "failed")
    assert why in found[failed]["reason"]
    assert why in (tmp_path / "outputs/s" / failed / "run.log").read_text()


def test_a_sweep_can_be_run_again(tmp_path: Path) -> None:
    """What is finished is skipped, what failed is tried again, values are added in any order, more steps extend."""
    (tmp_path / "mine.py").write_text(FATAL)
    first = runner(tmp_path, *SMALL, *MINE, "loss.fate=raise", "steps=20", "seed=0,1")
    assert first.returncode == 1
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "outputs/s").glob("*seed0*/*.csv")}
    (tmp_path / "mine.py").write_text(FATAL.replace('"raise"', '"never"'))  # the cause has been mended
    again = runner(tmp_path, *SMALL, *MINE, "loss.fate=raise", "steps=20", "seed=2,1,0")
    assert again.returncode == 0, again.stderr
    assert re.search(r"seed=0 +│ finished +│ +20 │ nothing was left to do", again.stdout), again.stdout
    assert all(path.stat().st_mtime_ns == before for path, before in written.items())
    assert all(len(frame) == 21 for frame in rows(tmp_path).values())
    assert len(rows(tmp_path)) == 3
    longer = runner(tmp_path, *SMALL, *MINE, "loss.fate=raise", "steps=25", "seed=1,0")
    assert longer.returncode == 0
    assert re.search(r"seed=0 +│ finished +│ +25 │ resumed 1 time", longer.stdout), longer.stdout
    assert sorted(len(frame) for frame in rows(tmp_path).values()) == [21, 26, 26]


def test_keep_going_can_be_turned_off(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FATAL)
    result = runner(tmp_path, *SMALL, *MINE, "loss.fate=exit", "steps=20", "seed=1,0,2", "sweep.keep_going=false")
    assert result.returncode == 1
    assert [one["status"] for one in statuses(tmp_path).values()] == ["failed"]
    assert len(re.findall("not started", result.stdout)) == 2


def test_jobs_side_by_side_write_the_same_bytes(tmp_path: Path) -> None:
    for folder, many in (("one", 1), ("two", 2)):
        (tmp_path / folder).mkdir()
        result = runner(tmp_path / folder, *SMALL, "steps=30", "seed=0,1,2", f"sweep.jobs_per_device={many}")
        assert result.returncode == 0, result.stderr
    for path in (tmp_path / "one").rglob("metrics.csv"):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()


SLOW = """
import multiprocessing, time
from runner.loss import MSE

if multiprocessing.parent_process() is not None:  # not where the sweep is checked
    open("started", "w").close()
    time.sleep(60)


class Loss(MSE):
    pass
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_a_job_has_begun_is_no_failure(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    slow = [*SMALL, "loss=custom", "loss._target_=slow.Loss", "seed=0,1"]
    process = subprocess.Popen(
        command(*slow), cwd=tmp_path, env=env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for _ in range(600):
        time.sleep(0.1)
        if (tmp_path / "started").exists():
            break
    process.send_signal(number)
    said, complaint = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert re.search(r"seed=0 +│ interrupted +│ +0 │ before its first step", said), said
    assert "Traceback" not in complaint


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR2])
def test_a_signal_to_the_sweep_stops_its_jobs_in_good_order(tmp_path: Path, number: signal.Signals) -> None:
    long = [*SMALL, "steps=100000", "seed=0,1,2", "sweep.jobs_per_device=2"]
    process = subprocess.Popen(
        command(*long), cwd=tmp_path, env=env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    for _ in range(600):
        time.sleep(0.1)
        if sum(path.stat().st_size > 1000 for path in tmp_path.rglob("metrics.csv")) == 2:
            break
    os.killpg(process.pid, number)  # as a terminal does
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert b"died" not in said
    assert said.count(b"interrupted") == 2
    assert not list(tmp_path.rglob("run.log"))
    found = statuses(tmp_path)
    assert {one.name for one in (tmp_path / "outputs/s").iterdir() if one.is_dir()} == set(found), "an empty folder"
    assert [(one["status"], one["reason"]) for one in found.values()] == [("interrupted", number.name)] * 2
    for name, frame in rows(tmp_path).items():
        assert frame["step"].tolist() == list(range(found[name]["step"]))


def test_jobs_end_with_the_sweep_that_is_killed(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(*SMALL, "steps=100000", "seed=0,1"), cwd=tmp_path, env=env(), stderr=subprocess.DEVNULL
    )
    for _ in range(600):
        time.sleep(0.1)
        if any(path.stat().st_size > 1000 for path in tmp_path.rglob("metrics.csv")):
            break
    process.kill()
    process.wait()
    for _ in range(300):
        time.sleep(0.1)
        if [one["status"] for one in statuses(tmp_path).values()] == ["interrupted"]:
            return
    raise AssertionError(statuses(tmp_path))


def test_every_cuda_device_takes_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert slots_of("auto", 2) == ["cuda:0", "cuda:1", "cuda:2"] * 2
    assert slots_of("cuda:1", 2) == ["cuda:1", "cuda:1"]
    assert slots_of("cpu", 1) == ["cpu"]


@pytest.mark.parametrize("workers", [1, 2])
def test_other_launchers_jobs_have_processes_of_their_own_too(tmp_path: Path, workers: int) -> None:
    """joblib's only worker is the process of the sweep itself."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    (tmp_path / "mine.py").write_text(FATAL)
    result = runner(
        tmp_path, *SMALL, *MINE, "loss.fate=exit", "steps=20", "seed=0,1,2", "hydra/launcher=joblib",
        f"hydra.launcher.n_jobs={workers}",
    )  # fmt: skip
    assert result.returncode == 1, result.stderr
    assert sorted(one["status"] for one in statuses(tmp_path).values()) == ["failed", "finished", "finished"]
    assert re.search(r"seed=1 +│ failed", result.stdout), result.stdout
