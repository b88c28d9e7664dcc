"""The jobs of a sweep: each in a process of its own, side by side where there is room, and what became of them."""

import json
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from runner.errors import BadInput
from runner.jobs import Job, JobsDisplay, final_table
from runner.outcomes import died, from_folder, listed, note
from runner.signals import StopSignals

POLL_SECONDS = 0.1
INTERRUPTED = 1  # Python's exit code of a process that SIGINT finds before it has come to its job


class Sweep:
    """All jobs of a sweep, in order. `slots`: devices that jobs are pinned to, each as often as it takes jobs; none
    where a launcher starts them."""

    def __init__(self, jobs: Sequence[Job], slots: Sequence[str], threads: int | None, keep_going: bool) -> None:
        self.jobs, self.threads, self.keep_going = {job.folder: job for job in jobs}, threads, keep_going
        self._free, self._all = list(slots), len(slots)
        self._running: list[_Worker] = []
        self.signals = StopSignals()
        common = shared(jobs)
        for job in jobs:
            job.shared = common
        self.display = JobsDisplay(self.jobs)

    @property
    def starts_jobs(self) -> bool:
        return self._all > 0

    @property
    def failed(self) -> bool:
        return any(job.status == "failed" for job in self.jobs.values())

    def submit(self, cfg: DictConfig, folder: Path, overrides: Sequence[str], hydra_cfg: DictConfig) -> None:
        """Start the job as soon as there is a slot for it; a run on several devices waits for all of them."""
        many = cfg.get("devices", 1) > 1
        while not self._free or (many and len(self._free) < self._all):
            self._tend()
        self._check()
        job = self.jobs.setdefault(folder, Job(overrides, folder))
        taken = self._free[:] if many else self._free[:1]
        self._free = self._free[len(taken) :]
        if not many and cfg.device in ("auto", "cuda"):
            cfg.device = taken[0]
        self._running.append(_Worker(job, taken, cfg, hydra_cfg, self.threads))
        self.display.changed(job)

    def wait(self) -> None:
        """Until all jobs that were started have ended."""
        while self._running:
            self._tend()
        self._check()

    def _check(self) -> None:
        if self.signals.received is not None:
            self._stop(self.signals.received)
            raise Interrupted(128 + self.signals.received)
        if self.failed and not self.keep_going:
            self._stop(signal.SIGTERM)
            raise Interrupted(1)

    def _stop(self, number: signal.Signals) -> None:
        """Ask those that run to checkpoint and end, and wait for it."""
        for worker in self._running:
            worker.signal(number)
        while self._running:
            self._collect()

    def _tend(self) -> None:
        self._collect()
        self._check()

    def _collect(self) -> None:
        """What the jobs have to say, after a moment; slots of those that have ended are free again."""
        time.sleep(POLL_SECONDS)
        for worker in list(self._running):
            if worker.over():
                self._running.remove(worker)
                self._free += worker.slots
                self.display.changed(worker.job)
        self.display.refresh()


class Interrupted(BaseException):
    """The sweep ends before its jobs do, with this exit code. Not an Exception: Hydra would go on."""

    def __init__(self, code: int) -> None:
        self.code = code


class _Worker:
    """A job's process."""

    def __init__(self, job: Job, slots: list[str], cfg: DictConfig, hydra_cfg: DictConfig, threads: int | None) -> None:
        self.job, self.slots = job, slots
        self._asked: signal.Signals | None = None  # to end
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["runner.fork_server"])
        self._pipe, child = context.Pipe(duplex=False)
        job.status = "running"
        arguments = (child, plain(cfg), plain(hydra_cfg), job.folder, list(job.overrides), threads)
        self._process = context.Process(target=_work, args=arguments)
        self._process.start()
        child.close()

    def signal(self, number: signal.Signals) -> None:
        if self._process.pid is not None and self._process.is_alive():
            self._asked = number
            os.kill(self._process.pid, number)

    def over(self) -> bool:
        """Take up the messages; has the process ended?"""
        alive = self._process.is_alive()
        for message in self._messages():
            for name, value in message.items():
                setattr(self.job, name, value)
        if alive:
            return False
        self._process.join()
        if self.job.status == "running" and self._asked and self._process.exitcode in (-self._asked, INTERRUPTED):
            self.job.status, self.job.note = "interrupted", "before its first step"
        elif self.job.status == "running":
            died(self.job, self._process.exitcode or 0)
        return True

    def _messages(self) -> Iterator[dict[str, Any]]:
        try:
            while self._pipe.poll():
                yield self._pipe.recv()
        except (EOFError, OSError):
            return


def _end_with_the_sweep() -> None:
    """Should the sweep's own process be killed, its jobs checkpoint and end."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def plain(cfg: DictConfig) -> DictConfig:
    """Without the classes of plugins, which do not survive the way to another process."""
    return OmegaConf.create(OmegaConf.to_container(cfg, resolve=False))  # type: ignore[arg-type, return-value]


def _work(
    pipe: Connection, cfg: DictConfig, hydra_cfg: DictConfig, folder: Path, overrides: list[str], threads: int | None
) -> None:
    """In the job's process."""
    os.setpgrp()  # a Ctrl-C at the terminal is for the sweep, which passes it on
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until training begins it ends the process, without a traceback
    threading.Thread(target=_end_with_the_sweep, daemon=True).start()
    import torch

    from runner import config  # noqa: F401  (the resolvers)
    from runner.display import Reporter
    from runner.job import execute

    if threads is not None:
        torch.set_num_threads(threads)

    def tell(message: dict[str, Any]) -> None:
        with suppress(OSError):  # nobody is listening any more
            pipe.send(message)

    reporters: list[Reporter] = []  # none if there is nothing left to do

    def reporter(steps: int, start: int, path: Path) -> Reporter:
        reporters.append(Reporter(tell, steps, start))
        return reporters[0]

    try:
        ended = execute(cfg, folder, overrides, hydra_cfg, display=reporter)
    except BadInput as error:
        tell({"status": "failed", "note": str(error)})
        sys.exit(2)
    except Exception as error:
        traceback.print_exc()
        tell({"status": "failed", "note": f"{type(error).__name__}: {error}"})
        sys.exit(1)
    resumed = json.loads((folder / "meta.json").read_text())["resumed"]
    text = note(ended.reason, resumed) if reporters else listed(ended.reason, "nothing was left to do")
    tell({"status": ended.status, "step": ended.step, "note": text})


def shared(jobs: Sequence[Job]) -> set[str]:
    """The overrides that all jobs have, if there are several."""
    return set.intersection(*(set(job.overrides) for job in jobs)) if len(jobs) > 1 else set()


def slots_of(device: str, per_device: int) -> list[str]:
    """Where jobs may run: on every cuda device that there is, or on the one device that is named."""
    import torch

    if device in ("auto", "cuda") and torch.cuda.is_available():
        return [f"cuda:{index}" for _ in range(per_device) for index in range(torch.cuda.device_count())]
    return [device] * per_device


def threads_of(count: int) -> int:
    """The CPU threads of each of so many jobs side by side."""
    import torch

    return max(1, torch.get_num_threads() // count)


class JobFailed(Exception):
    """A job of a sweep failed, and has said how."""


_current: Sweep | None = None  # of this process


def begin(jobs: Sequence[Job], cfg: DictConfig, own_processes: bool) -> None:
    """A sweep over these jobs starts. `own_processes`: they run side by side on this machine, from `run_job`; else a
    launcher runs them, and their folders tell what became of them."""
    global _current
    slots = slots_of(cfg.device, cfg.sweep.jobs_per_device) if own_processes else []
    _current = Sweep(jobs, slots, threads_of(len(slots)) if slots else None, cfg.sweep.keep_going)
    if own_processes:
        _current.signals.__enter__()
        _current.display.start()


def run_job(cfg: DictConfig, folder: Path, overrides: Sequence[str], hydra_cfg: DictConfig) -> None:
    """Start the job of a sweep, in this process's own sweep, or, from a launcher (joblib with one worker calls it in
    the process of the sweep), alone and to its end."""
    if _current is not None and _current.starts_jobs:
        _current.submit(cfg, folder, overrides, hydra_cfg)
        return
    multiprocessing.set_start_method("forkserver", force=True)  # joblib leaves one here that its children do not know
    alone = Sweep([Job(overrides, folder)], [cfg.device], None, True)
    with alone.signals:
        alone.submit(cfg, folder, overrides, hydra_cfg)
        alone.wait()
    if alone.failed:
        raise JobFailed


def finish() -> None:
    """Wait for the jobs of this process's sweep, if there is one; raises JobFailed if any failed."""
    if _current is not None:
        _current.wait()
        if _current.failed:
            raise JobFailed


def report() -> None:
    """The table of what became of all jobs, if there was a sweep."""
    global _current
    if _current is None:
        return
    from rich.console import Console

    _current.display.stop()
    _current.signals.__exit__(None, None, None)
    for job in _current.jobs.values():
        if job.status == "waiting":  # another launcher's, or never started
            from_folder(job)
        elif job.status == "running":  # a second SIGINT waits for nobody
            job.note = "stopping"
    Console().print(final_table(list(_current.jobs.values())))
    _current = None
