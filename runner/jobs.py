"""A sweep as a person sees it: a live table at a terminal, plain lines elsewhere, a table of all jobs at the end."""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

PLAIN_SECONDS = 10.0
LIVE_SECONDS = 0.5


@dataclass
class Job:
    """One config of the sweep, and what is known of it: `note` says why it ended as it did, or how it went. Its name
    leaves out the overrides that are `shared` by all jobs."""

    overrides: Sequence[str]
    folder: Path
    shared: Collection[str] = ()
    status: str = "waiting"
    step: int = 0
    steps: int = 0
    rate: float = 0.0
    note: str = ""
    values: dict[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return " ".join(one for one in self.overrides if one not in self.shared) or self.folder.name

    @property
    def progress(self) -> str:
        numbers = "  ".join(f"{name} {value:.4g}" for name, value in self.values.items())
        return f"step {self.step}/{self.steps}  {self.rate:.1f}/s  {numbers}" if self.steps else ""


class JobsDisplay:
    """Shows `jobs`, which others keep up to date, on standard error."""

    def __init__(self, jobs: Mapping[Path, Job], console: Console | None = None) -> None:
        self.jobs, self.console = jobs, console or Console(stderr=True)
        self._live = Live(console=self.console, auto_refresh=False) if self.console.is_terminal else None
        self._shown = time.monotonic()

    def start(self) -> None:
        if self._live:
            self._live.start()

    def stop(self) -> None:
        if self._live:
            self._live.stop()

    def changed(self, job: Job) -> None:
        """A job began or ended: a line where there is no live table."""
        if not self._live:
            self._line(job, " ".join(filter(None, [job.status, job.note])))

    def refresh(self) -> None:
        now = time.monotonic()
        if now - self._shown < (LIVE_SECONDS if self._live else PLAIN_SECONDS):
            return
        self._shown = now
        running = [job for job in self.jobs.values() if job.status == "running"]
        if self._live:
            self._live.update(live_table(self.jobs.values(), running), refresh=True)  # type: ignore[arg-type]
            return
        for job in running:
            if job.progress:
                self._line(job, job.progress)

    def _line(self, job: Job, text: str) -> None:
        ended = sum(one.status not in ("waiting", "running") for one in self.jobs.values())
        print(f"[{ended}/{len(self.jobs)} ended] {job.name}: {text}", file=self.console.file, flush=True)


def live_table(jobs: Sequence[Job], running: Sequence[Job]) -> Table:
    """Those that run, and how many there are of the others."""
    counts: dict[str, int] = {}
    for job in jobs:
        counts[job.status] = counts.get(job.status, 0) + 1
    table = Table(title=", ".join(f"{count} {status}" for status, count in counts.items()))
    for column in ("job", "progress"):
        table.add_column(column)
    for job in running:
        table.add_row(escape(job.name), escape(job.progress))
    return table


def final_table(jobs: Sequence[Job]) -> Table:
    """What became of each."""
    table = Table(title="jobs of the sweep")
    for column in ("job", "status", "step", "note"):
        table.add_column(column, justify="right" if column == "step" else "left", overflow="fold")
    for job in jobs:
        table.add_row(escape(job.name), job.status, str(job.step), escape(job.note))
    return table
