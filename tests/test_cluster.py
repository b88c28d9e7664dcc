"""Launchers of the extra [sweep], without a cluster; tests/test_slurm.py has the real thing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runner.cli import main

SMALL = ["dataset.size=60", "arch.depth=3", "arch.base_width=6", "device=cpu", "probe=fd", "name=s"]
WITHOUT_PLUGINS = "import sys; sys.modules['hydra_plugins'] = None; from runner.cli import main; main()"


def call(folder: Path, command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run([sys.executable, *command], cwd=folder, env=env, capture_output=True, text=True, timeout=300)


def test_without_the_extra(tmp_path: Path) -> None:
    code = ["-c", WITHOUT_PLUGINS]
    assert call(tmp_path, [*code, "--help"]).returncode == 0
    for launcher in ("slurm", "submitit_local", "joblib"):
        refused = call(tmp_path, [*code, "-m", f"hydra/launcher={launcher}", *SMALL])
        assert refused.returncode == 2
        assert "comes with the extra [sweep]" in refused.stderr
        assert "Traceback" not in refused.stderr


def test_without_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["runner", "-m", "hydra/launcher=slurm", *SMALL])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert "sbatch and srun should be on this machine, found none" in capfd.readouterr().err


def processes(folder: Path) -> list[int]:
    """The jobs that submitit has started for this folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_bytes().decode().split("\0")
        except OSError:
            continue
        if "submitit.core._submit" in arguments and any(one.startswith(str(folder)) for one in arguments):
            found.append(int(path.parent.name))
    return found


@pytest.mark.slow
def test_a_local_job_is_requeued(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    alone, swept = tmp_path / "alone", tmp_path / "swept"
    for folder in (alone, swept):
        folder.mkdir()
    assert call(alone, ["-m", "runner", *SMALL, "steps=1500"]).returncode == 0
    command = [sys.executable, "-m", "runner", "-m", "hydra/launcher=submitit_local", *SMALL, "steps=1500"]
    process = subprocess.Popen(command, cwd=swept, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE)
    while not any(path.stat().st_size > 1000 for path in swept.rglob("metrics.csv")):
        assert process.poll() is None
        time.sleep(0.1)
    (job,) = processes(swept)
    os.kill(job, signal.SIGUSR2)
    out = process.communicate(timeout=200)[0].decode()
    assert process.returncode == 0
    assert "resumed 1 time" in out
    ((first,), (second,)) = (list(folder.rglob("metrics.csv")) for folder in (alone, swept))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.slow
def test_joblib(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    done = call(tmp_path, ["-m", "runner", "-m", "hydra/launcher=joblib", *SMALL, "steps=2", "seed=0,1"])
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.rglob("metrics.csv"))) == 2
