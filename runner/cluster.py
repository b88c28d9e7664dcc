"""Jobs that submitit runs, on a Slurm cluster or in processes of this machine: how an interrupted one is requeued, and
what the process that submitted them says."""

import os
import re
import shutil
import signal
import subprocess
import sys
from typing import NoReturn

from omegaconf import DictConfig

from runner.errors import BadInput
from runner.signals import STOPPING
from runner.sweep import JobFailed


def submitting(cfg: DictConfig, count: int) -> None:
    """Before a sweep goes to Slurm: raises BadInput if that cannot be done from here, else says where the jobs go,
    since nothing more is said until they have ended."""
    if not (shutil.which("sbatch") and shutil.which("srun")):
        raise BadInput(
            "hydra/launcher: Slurm's commands sbatch and srun should be on this machine, found none; "
            "choose basic or submitit_local"
        )
    folder = str(cfg.hydra.launcher.submitit_folder).removesuffix("/%j")
    print(
        f"runner: submitting {count} job{'s' if count > 1 else ''} to Slurm, with logs below {folder}. This process "
        "only waits for them: without it they go on, and the same command finds what they have done.",
        file=sys.stderr,
    )


def leave(reason: str) -> NoReturn:
    """End the process of a job that the signal `reason` has interrupted, after its checkpoint, in such a way that the
    cluster runs it again, if it was not cancelled. Raises JobFailed if it will not be run again."""
    number = signal.Signals[reason]
    if number == signal.SIGUSR2 or (number == signal.SIGTERM and _warned()):
        _requeue(reason)
    sys.exit(128 + number)  # without a result: submitit goes by what the cluster says of the job


def _requeue(reason: str) -> None:
    """What submitit does at once when SIGUSR2 comes, while nobody else handles it."""
    from submitit.core.utils import UncompletedJobError

    handler = signal.getsignal(signal.SIGUSR2)
    assert callable(handler)
    for number in STOPPING:  # a second one would requeue twice, and Slurm sends SIGTERM to what it requeues
        signal.signal(number, signal.SIG_IGN)
    try:
        handler(signal.SIGUSR2, None)
    except (UncompletedJobError, subprocess.SubprocessError) as error:
        if isinstance(error, UncompletedJobError) or _warned():
            raise JobFailed(f"interrupted by {reason}; {error} The same command again continues it") from error


def _warned() -> bool:
    """Is the job still running in Slurm's eyes, so that the signal is only a warning? Otherwise Slurm ends or requeues
    the job by itself, and to requeue it would bring one back that was cancelled."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return False
    command = ["squeue", "--noheader", "--format=%T", "--jobs", job]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() == "RUNNING"


def explained(error: Exception) -> Exception:
    """An error of submitit in words that say what to do; any other as it is."""
    if not type(error).__module__.startswith("submitit."):
        return error
    if died := re.match(r"Job (\S+) .*\(state: ([^)]*)\)", str(error), re.DOTALL):
        return JobFailed(
            f"job {died[1]} ended without a result ({died[2]}); the others go on, and the same command again, later, "
            "continues what is unfinished"
        )
    if isinstance(error.__cause__, subprocess.CalledProcessError):
        return BadInput(f"the cluster refused the jobs: {error}; see hydra.launcher in --cfg hydra")
    return error
