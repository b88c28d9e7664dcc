"""What a person sees while a run goes on: a live line at a terminal, plain lines at intervals anywhere else."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text
from torch import Tensor

from runner.cells import Cell, Cells

PLAIN_SECONDS = 10.0  # between lines of a log
LIVE_SECONDS = 0.2  # between redraws at a terminal
CURVATURES = ("gHg", "gGg", "gHrg")


class Latest:
    """The numbers that a person looks at, each as it was measured last, and when it is time to look."""

    def __init__(self, steps: int, start: int, interval: float) -> None:
        self._steps, self._start, self._interval = steps, start, interval
        self._began = self._shown = time.monotonic()
        self._cells: Cells = {}
        self.rate = 0.0  # steps a second

    def take(self, step: int, row: Cells) -> bool:
        """Remember what was measured: is the last look long enough ago, or has the run ended?"""
        self._cells |= {name: cell for name, cell in row.items() if cell is not None}
        now = time.monotonic()
        if now - self._shown < self._interval and step < self._steps:
            return False
        self._shown = now
        self.rate = (step - self._start) / max(now - self._began, 1e-9)
        return True

    @property
    def values(self) -> dict[str, float]:
        shown = {name: cell for name, cell in self._cells.items() if _is_shown(name)}
        return {name.removeprefix("train_"): float(middle(cell)) for name, cell in shown.items()}


class Display:
    """Shows the latest of what it is told, on standard error, so that redirected output stays clean."""

    def __init__(self, steps: int, start: int, folder: Path, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.steps, self.start, self.folder = steps, start, folder
        self.live = self.console.is_terminal
        self._latest = Latest(steps, start, LIVE_SECONDS if self.live else PLAIN_SECONDS)
        self._progress = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        )
        self._task = self._progress.add_task("", total=steps, completed=start, rate="")
        self._live = Live(console=self.console, auto_refresh=False)

    def __enter__(self) -> Self:
        if self.start:
            self.console.print(f"continuing at step {self.start} of {self.steps} in {self.folder}", soft_wrap=True)
        if self.live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, step: int, row: Cells) -> None:
        if not self._latest.take(step, row):
            return
        rate = self._latest.rate
        values = "  ".join(f"{name} {value:.4g}" for name, value in self._latest.values.items())
        if self.live:
            self._progress.update(self._task, completed=step, rate=f"{rate:.1f}/s")
            self._live.update(Group(self._progress, Text(values)), refresh=True)
        else:
            left = (self.steps - step) / rate if rate else float("inf")
            line = f"step {step}/{self.steps}  {rate:.1f}/s  {duration(left)} left  {values}"
            print(line, file=self.console.file, flush=True)


class Reporter:
    """Tells another process, by `send`, what a `Display` would show."""

    def __init__(self, send: Callable[[dict[str, Any]], None], steps: int, start: int) -> None:
        self._send, self.steps, self.start = send, steps, start
        self._latest = Latest(steps, start, LIVE_SECONDS)

    def __enter__(self) -> Self:
        self._send({"step": self.start, "steps": self.steps})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is open."""

    def show(self, step: int, row: Cells) -> None:
        if self._latest.take(step, row):
            self._send({"step": step, "rate": self._latest.rate, "values": self._latest.values})


def middle(cell: Cell) -> Any:
    """The number; of networks side by side the median of those that have one."""
    if isinstance(cell, list):
        return statistics.median([float(one) for one in cell if one is not None])  # type: ignore[arg-type]
    return cell.median() if isinstance(cell, Tensor) and cell.numel() > 1 else cell


def _is_shown(column: str) -> bool:
    """The losses, the test error, and the curvatures along g of whichever probe measures them."""
    return column in ("train_loss", "test_error") or column.split("_", 1)[-1].split("_mu")[0] in CURVATURES


def duration(seconds: float) -> str:
    """1:02:03; `?` where it is not known."""
    if seconds == float("inf"):
        return "?"
    minutes, s = divmod(round(seconds), 60)
    h, m = divmod(minutes, 60)
    return f"{h}:{m:02d}:{s:02d}"
