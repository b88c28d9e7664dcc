"""One run on several devices: this process starts a rank for each, hears them, and ends them all when one fails."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from omegaconf import DictConfig

from runner.folder import RunFolder
from runner.rank import Assignment, Built, Failure, Shown
from runner.ranks import Ranks
from runner.signals import STOPPING
from runner.work import Outcome, Show, Stop

POLL_SECONDS = 0.1
GRACE_SECONDS = 3.0  # for the rank that failed first to say so, when another one already misses it

_COMMAND = "import sys; sys.path[:] = {path!r}; from runner.rank import main; main({descriptor})"


class RankDied(RuntimeError):
    """A rank's process ended without a word."""


@contextmanager
def crew(cfg: DictConfig, folder: RunFolder) -> Iterator["Crew"]:
    """The work in `cfg.devices` processes, none of which is left afterwards."""
    members: list[Member] = []
    with TemporaryDirectory(prefix="runner-") as place:
        try:
            for rank in range(cfg.devices):
                threads = max(1, torch.get_num_threads() // cfg.devices)
                rendezvous = str(Path(place) / "rendezvous")
                members.append(Member(Assignment(Ranks(rank, cfg.devices), folder, rendezvous, threads)))
            yield Crew(members)
        finally:
            for member in members:
                member.end()


class Member:
    """A rank's process, and the line to it: either end hears when the other one is gone."""

    def __init__(self, given: Assignment) -> None:
        self.rank = given.ranks.rank
        self.line, theirs = connection.Pipe()
        command = _COMMAND.format(path=sys.path, descriptor=theirs.fileno())
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)  # it is born deaf to them
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", command],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), given.folder.fileno()),
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()
        self.tell(given)

    def tell(self, order: Any) -> None:
        with suppress(OSError):  # that it is gone will be heard
            self.line.send(order)

    def hear(self) -> Any:
        try:
            return self.line.recv()
        except (EOFError, OSError):
            return Failure(RankDied(f"rank {self.rank} {self._end()} without a word"), lost=False)

    def _end(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(GRACE_SECONDS)
        code = self.process.returncode
        if code is None or code >= 0:
            return f"ended with exit code {code}"
        hint = " (out of memory?)" if code == -signal.SIGKILL else ""
        return f"was ended by {signal.Signals(-code).name}{hint}"

    def end(self) -> None:
        """What it wrote is on the disk, and nobody waits for it any more."""
        self.process.kill()
        self.process.wait()
        self.line.close()


class Crew:
    """The work of all ranks together."""

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members
        built: Built = self._reports()[0]
        self.steps, self.meta = built.steps, built.meta

    def train(self, folder: RunFolder, state: dict[str, Any] | None, stop: Stop, show: Show) -> Outcome:
        """Each rank reads the checkpoint by itself."""
        for member in self._members:
            member.tell(state is not None)
        outcome: Outcome = self._reports(stop, show)[0]
        return outcome

    def _reports(self, stop: Stop = lambda: "", show: Show = lambda step, row: None) -> list[Any]:
        """The next report of each rank. Raises the error of the one that failed first: what others say who only miss it
        tells nothing."""
        found: dict[int, Any] = {}
        failures: list[Failure] = []
        until, told = float("inf"), False
        while len(found) < len(self._members) and time.monotonic() < until:
            for member in self._heard(found):
                report = member.hear()
                if isinstance(report, Shown):
                    show(*report)
                    continue
                found[member.rank] = report
                if isinstance(report, Failure):
                    failures.append(report)
                    until = min(until, time.monotonic() + (GRACE_SECONDS if report.lost else 0))
            if not told and (reason := stop()):
                told = True
                self._members[0].tell(signal.Signals[reason])
        if failures:
            raise min(failures, key=lambda failure: failure.lost).error
        return [found[member.rank] for member in self._members]

    def _heard(self, reported: Any) -> list[Member]:
        """Those of the others who have something to say, after a moment at most."""
        waiting = {member.line: member for member in self._members if member.rank not in reported}
        return [waiting[line] for line in connection.wait(list(waiting), POLL_SECONDS)]  # type: ignore[index]
