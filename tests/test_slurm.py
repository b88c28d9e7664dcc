"""Sweeps on a real Slurm: whatever happens to a job, it continues in its folder, and its rows are those of a run that
nothing has happened to. `tests/slurm/start.sh python -m pytest -m slurm` starts a cluster of one node for them."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest


def controller_answers() -> bool:
    return subprocess.run(["scontrol", "ping"], capture_output=True).returncode == 0


if not shutil.which("sbatch"):
    pytest.skip("there is no sbatch", allow_module_level=True)
if not controller_answers():
    pytest.skip("no Slurm controller answers; see tests/slurm/start.sh", allow_module_level=True)
pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="the extra [sweep] is not installed")
pytestmark = [pytest.mark.slurm, pytest.mark.slow]

# Steps that take their time on the cluster, so that things can happen in mid-run, and none elsewhere.
LOSS = """
import os, time
from torch import nn

class Loss(nn.Module):
    encoding = "value"

    def forward(self, outputs, targets):
        if "SLURM_JOB_ID" in os.environ:
            time.sleep(float(os.environ["PAUSE"]))
        return ((outputs - targets) ** 2).mean()
"""
STEPS = 300
SETTING = ["name=s", "dataset.size=60", "arch.depth=3", "arch.base_width=6", "device=cpu"]
SETTING += ["loss=custom", "loss._target_=mine.Loss", "probe=fd", f"steps={STEPS}"]
SLURM = ["hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1"]


def start(folder: Path, *overrides: str, pause: float = 0.02) -> subprocess.Popen[str]:
    """The process that submits the sweep and waits for it."""
    (folder / "mine.py").write_text(LOSS)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "PAUSE": str(pause)}
    return subprocess.Popen(
        [sys.executable, "-m", "runner", "-m", *SETTING, *overrides],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit code, and what it said on standard error."""
    said = process.communicate(timeout=200)[1]
    return process.returncode, said


def run(folder: Path, *overrides: str) -> tuple[int, str]:
    return finish(start(folder, *overrides))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path, int], None]:
    """Asserts that runs of so many seeds are those of a sweep without Slurm, to the byte."""
    reference = tmp_path_factory.mktemp("reference")
    (reference / "mine.py").write_text(LOSS)
    script = "import runner, sys; [runner.run([*sys.argv[1:], f'seed={seed}']) for seed in range(4)]"
    command = [sys.executable, "-c", script, *SETTING]
    subprocess.run(command, cwd=reference, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, capture_output=True)

    def check(folder: Path, seeds: int) -> None:
        for seed in range(seeds):
            for name in ("metrics.csv", "epochs.csv"):
                ours, theirs = (run_folder(where, seed) / name for where in (folder, reference))
                assert ours.read_bytes() == theirs.read_bytes(), (seed, name)
            assert state(folder, seed)["status"] == "finished"

    return check


def run_folder(folder: Path, seed: int) -> Path:
    (found,) = (folder / "outputs" / "s").glob(f"*-seed{seed}-*")
    return found


def state(folder: Path, seed: int) -> dict[str, object]:
    return dict(json.loads((run_folder(folder, seed) / "status.json").read_text()))


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 100) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {seconds} seconds"
        time.sleep(0.1)


def in_mid_run(folder: Path, *seeds: int) -> None:
    """Wait until each of these has written rows."""

    def rows(seed: int) -> bool:
        return any(path.stat().st_size > 1000 for path in folder.glob(f"outputs/s/*-seed{seed}-*/metrics.csv"))

    wait_for(lambda: all(map(rows, seeds)), "rows")


def job_ids(folder: Path) -> list[str]:
    """`<array>_<index>` of the jobs that were submitted, in the order of the seeds."""
    found = [path.name for path in (folder / "outputs" / "s" / ".submitit").glob("[0-9]*_*")]
    return sorted(found, key=lambda name: [int(part) for part in name.split("_")])


def call(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def restarts(job: str) -> int:
    found = re.search(r"Restarts=(\d+)", call("scontrol", "show", "job", job))
    assert found is not None
    return int(found[1])


def processes(job: str) -> list[int]:
    """Those that srun has started for it."""
    number = call("squeue", "--noheader", "--format=%A", f"--jobs={job}").strip()
    lines = [line.split() for line in call("scontrol", "listpids", number).splitlines()]
    return [int(pid) for pid, _, step, _, _ in lines if step == "0"]


def log(folder: Path, job: str) -> str:
    return "".join(path.read_text() for path in (folder / "outputs" / "s" / ".submitit" / job).glob("*_log.*"))


def continued_where_it_stopped(folder: Path, job: str) -> bool:
    """The step of the checkpoint that the interrupted job wrote is the one that the requeued job went on from."""
    text = log(folder, job)
    stopped = re.findall(r"interrupted after (\d+) steps", text)
    return bool(stopped) and stopped == re.findall(r"continuing at step (\d+)", text)


def test_an_array_whose_jobs_are_signalled_and_requeued(tmp_path: Path, undisturbed: Callable[..., None]) -> None:
    process = start(tmp_path, *SLURM, "seed=0,1,2,3")
    in_mid_run(tmp_path, 0, 1, 2, 3)
    jobs = job_ids(tmp_path)
    assert len({job.split("_")[0] for job in jobs}) == 1, "one array"
    call("scancel", "--signal=USR2", jobs[0])
    call("scancel", "--signal=TERM", jobs[1])
    call("scontrol", "requeue", jobs[2])
    code, said = finish(process)
    assert code == 0, said
    assert "submitting 4 jobs to Slurm" in said
    undisturbed(tmp_path, 4)
    assert [restarts(job) for job in jobs] == [1, 1, 1, 0]
    assert all(continued_where_it_stopped(tmp_path, job) for job in jobs[:3])


def test_preemption(tmp_path: Path, undisturbed: Callable[..., None]) -> None:
    """A job of a partition that goes before takes the whole node."""
    if "urgent" not in call("sinfo", "--noheader", "--format=%R"):
        pytest.skip("there is no partition `urgent` whose jobs preempt others")
    process = start(tmp_path, *SLURM, "seed=0,1")
    in_mid_run(tmp_path, 0, 1)
    call("sbatch", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=true")
    code, said = finish(process)
    assert code == 0, said
    undisturbed(tmp_path, 2)
    assert [restarts(job) for job in job_ids(tmp_path)] == [1, 1]
    assert all(continued_where_it_stopped(tmp_path, job) for job in job_ids(tmp_path))


def test_the_time_limit(tmp_path: Path, undisturbed: Callable[..., None]) -> None:
    """One timeout is allowed: the job is requeued at the first, not at the second, and the sweep can be run again."""
    limits = ["hydra.launcher.timeout_min=1", "hydra.launcher.signal_delay_s=25", "hydra.launcher.max_num_timeout=1"]
    code, said = finish(start(tmp_path, *SLURM, *limits, "seed=0,1", pause=0.3))
    assert code == 1, said
    assert "Job not requeued because: timed-out too many times" in said
    assert "Traceback" not in said
    wait_for(lambda: not call("squeue", "--noheader", f"--jobs={job_ids(tmp_path)[0].split('_')[0]}"), "all jobs' end")
    assert [restarts(job) for job in job_ids(tmp_path)] == [1, 1]
    assert state(tmp_path, 0)["status"] == "interrupted"
    assert run(tmp_path, "seed=0,1")[0] == 0
    undisturbed(tmp_path, 2)


def test_a_job_killed_with_9(tmp_path: Path, undisturbed: Callable[..., None]) -> None:
    process = start(tmp_path, *SLURM, "seed=0,1", "checkpoint_minutes=0.01")
    in_mid_run(tmp_path, 0, 1)
    job = job_ids(tmp_path)[0]
    for pid in processes(job):
        os.kill(pid, signal.SIGKILL)
    code, said = finish(process)
    assert code == 1
    assert f"job {job} ended without a result (FAILED)" in said
    assert "Traceback" not in said
    wait_for(lambda: state(tmp_path, 1)["status"] == "finished", "the other job's end")
    assert run(tmp_path, "seed=0,1")[0] == 0
    undisturbed(tmp_path, 2)


def test_two_sweeps_at_once(tmp_path: Path, undisturbed: Callable[..., None]) -> None:
    """Who comes second to a folder is refused in one sentence, and harms nothing."""
    both = [start(tmp_path, *SLURM, "seed=0,1") for _ in range(2)]
    said = dict(map(finish, both))
    assert set(said) in ({0, 1}, {1})  # each may have come first to one folder
    assert "another process is running in" in said[1]
    assert "Traceback" not in said[1]
    undisturbed(tmp_path, 2)


def test_the_submitting_process_killed_with_9(tmp_path: Path, undisturbed: Callable[..., None]) -> None:
    """Its jobs go on; the sweep is refused as long as they run, and then finds what they have done."""
    process = start(tmp_path, *SLURM, "seed=0,1")
    in_mid_run(tmp_path, 0, 1)
    process.kill()
    process.communicate()
    call("scancel", "--signal=STOP", *job_ids(tmp_path))  # so that they do not end meanwhile
    code, said = run(tmp_path, "seed=0,1")
    call("scancel", "--signal=CONT", *job_ids(tmp_path))
    assert code == 1
    assert "another process is running in" in said
    wait_for(lambda: all(state(tmp_path, seed)["status"] == "finished" for seed in (0, 1)), "the jobs' end")
    undisturbed(tmp_path, 2)
    code, said = run(tmp_path, *SLURM, "seed=0,1")
    assert code == 0, said
    undisturbed(tmp_path, 2)
