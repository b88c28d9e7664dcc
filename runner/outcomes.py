"""What became of a job of a sweep: by how its process ended, and by what its folder tells."""

import json
import signal
import time

from runner.jobs import Job
from runner.writing import write_json


def died(job: Job, exitcode: int) -> None:
    """A process that ended without a word: its folder says so too."""
    name = signal.Signals(-exitcode).name if exitcode < 0 else f"exit code {exitcode}"
    hint = " (out of memory?)" if exitcode == -signal.SIGKILL else ""
    job.status, job.note = "failed", f"the process died by {name}{hint}"
    path = job.folder / "status.json"
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError):
        return
    if known["status"] == "running":
        write_json(path, {**known, "status": "failed", "reason": job.note})
        with (job.folder / "run.log").open("a") as log:
            log.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {job.note}\n")


def from_folder(job: Job) -> None:
    """What the job's folder tells of it."""
    try:
        known = json.loads((job.folder / "status.json").read_text())
        resumed = json.loads((job.folder / "meta.json").read_text()).get("resumed", 0)
    except (OSError, ValueError):
        job.status = "not started"
        return
    job.status, job.step, job.note = known["status"], known["step"], note(known["reason"], resumed)


def note(reason: str, resumed: int) -> str:
    """Why it ended, and how often it was continued."""
    times = f"resumed {resumed} time{'s' if resumed > 1 else ''}" if resumed else ""
    return listed(reason, times)


def listed(*notes: str) -> str:
    """Those that say something."""
    return "; ".join(filter(None, notes))
