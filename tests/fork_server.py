"""Starts runs without waiting for their imports: a process that has all of torch forks one for each request.

    server = ForkServer()
    run = server.start(["steps=5", "hydra.run.dir=…"], tmp_path / "said")      # as `python -m runner steps=5 …`
    code = server.end(run, kill_after=0.2)                                     # SIGKILL, unless it has ended by then

`before` names one of the functions below, which the new process calls first.
"""

import ctypes
import importlib
import itertools
import json
import mmap
import os
import pkgutil
import resource
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

PHASES = ["starting", "between", "writing rows", "writing a checkpoint", "writing a probe's file", "writing a record"]


class ForkServer:
    """The tests' side. Standard output and error of a run go to a file."""

    def __init__(self) -> None:
        command = [sys.executable, __file__]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self._ask({"do": "hello"})

    def start(self, overrides: Sequence[str], said: Path, before: Sequence[Any] = ()) -> int:
        """The id of a new process that runs these overrides."""
        return self._ask({"do": "start", "overrides": list(overrides), "said": str(said), "before": list(before)})

    def end(self, run: int, kill_after: float | None = None, aim: tuple[str, str, float] | None = None) -> int:
        """The exit code; -n of a process that signal n ended. `aim`: the file of a run that was started with `watch`, a
        phase, and how many seconds after that was first seen to kill; `kill_after` counts from the first step then."""
        return self._ask({"do": "end", "run": run, "kill_after": kill_after, "aim": aim})

    def __call__(self, overrides: Sequence[str], said: Path, before: Sequence[Any] = ()) -> int:
        return self.end(self.start(overrides, said, before))

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)

    def _ask(self, request: dict[str, Any]) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


def serve() -> None:
    import torch
    import torch._dynamo  # which optimizers import late

    import runner.job
    import runner.summary

    for package in ("arch", "dataset", "probe"):
        for module in pkgutil.iter_modules([str(Path(runner.__path__[0]) / package)], f"runner.{package}."):
            importlib.import_module(module.name)
    torch.set_num_threads(1)
    for line in sys.stdin:
        request = json.loads(line)
        answer = 0
        if request["do"] == "start":
            answer = _start(**{key: request[key] for key in ("overrides", "said", "before")})
        elif request["do"] == "end":
            answer = _end(request["run"], request["kill_after"], request["aim"])
        print(answer, flush=True)


def _start(overrides: list[str], said: str, before: list[Any]) -> int:
    if (run := os.fork()) > 0:
        return run
    code = 1
    try:
        for descriptor in (1, 2):
            os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        if before:
            globals()[before[0]](*before[1:])
        code = _run(overrides)
    finally:
        os._exit(code)  # and leave the rest to the server


def _run(overrides: list[str]) -> int:
    from runner.cli import main

    sys.argv = ["runner", *overrides]
    try:
        main()
    except SystemExit as stopped:
        return int(stopped.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _end(run: int, kill_after: float | None, aim: tuple[str, str, float] | None) -> int:
    """Whoever has not been waited for keeps its id, so that no other process can be hit."""
    if kill_after is not None:
        descriptor = os.pidfd_open(run)
        if aim is None:
            select.select([descriptor], [], [], kill_after)
        else:
            _wait_for(descriptor, *aim, kill_after)
        if not select.select([descriptor], [], [], 0)[0]:
            os.kill(run, signal.SIGKILL)
        os.close(descriptor)
    return os.waitstatus_to_exitcode(os.waitpid(run, 0)[1])


def _wait_for(descriptor: int, path: str, phase: str, moment: float, after: float) -> None:
    """Until the run is in this phase, `after` some time of its work."""
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 1) as now:

        def wait(condition: Callable[[], bool], step: float) -> bool:
            while not condition():
                if select.select([descriptor], [], [], step)[0]:
                    return False
            return True

        if wait(lambda: now[0] != 0, 1e-3) and not select.select([descriptor], [], [], after)[0]:
            wait(lambda: now[0] == PHASES.index(phase), 1e-5)
            time.sleep(moment)


# What a new process may be told to do first.


def watch(path: str) -> None:
    """Keep the number of the phase that the run is in in a file of one byte, which outlives it."""
    from runner import checkpoint, folder, job, progress, records, train

    with open(path, "r+b") as file:
        phase = mmap.mmap(file.fileno(), 1)

    def during(name: str, work: Callable[..., Any], afterwards: str | None = None) -> Callable[..., Any]:
        def watched(*arguments: Any, **keywords: Any) -> Any:
            before, phase[0] = phase[0], PHASES.index(name)
            try:
                return work(*arguments, **keywords)
            finally:
                phase[0] = PHASES.index(afterwards) if afterwards else before

        return watched

    checkpoint.save = during("writing a checkpoint", checkpoint.save)
    records.Table.flush = during("writing rows", records.Table.flush)  # type: ignore[method-assign]
    progress.write_file = during("writing a probe's file", progress.write_file)
    for module in (job, folder):
        module.write_json = during("writing a record", module.write_json)
    train.look = during("between", train.look, afterwards="between")


def die_at(number: int) -> None:
    """SIGKILL at the n-th operation on a file of the run, counted from 1: before it, or in the middle of a write."""
    count = itertools.count(1)

    def due() -> bool:
        return next(count) == number

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def guarded(work: Callable[..., Any]) -> Callable[..., Any]:
        def operation(*arguments: Any, **keywords: Any) -> Any:
            if due():
                die()
            return work(*arguments, **keywords)

        return operation

    write = os.write

    def half_a_write(descriptor: int, data: Any) -> int:
        if due():
            write(descriptor, data[: len(data) // 2])
            die()
        return write(descriptor, data)

    os.write = half_a_write  # type: ignore[assignment]
    for name in ("replace", "fsync", "ftruncate", "mkdir", "unlink"):
        setattr(os, name, guarded(getattr(os, name)))

    def opened(event: str, arguments: tuple[Any, ...]) -> None:
        """Every file that is opened for writing, by whatever library."""
        if event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR) and due():
            die()

    sys.addaudithook(opened)


def limit_files(size: int) -> None:
    """No file may grow beyond so many bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def at_step(step: int, action: str, folder: str) -> None:
    """Let something happen to the run's folder in mid-run."""
    from runner import train

    update, steps = train.update, itertools.count()

    def then(*arguments: Any) -> None:
        if next(steps) == step:
            ACTIONS[action](Path(folder))
        update(*arguments)

    train.update = then


def _replace(folder: Path) -> None:
    """By a copy, as another process would leave it that had the same run."""
    shutil.copytree(folder, folder.with_name("copy"))
    folder.rename(folder.with_name("original"))
    folder.with_name("copy").rename(folder)


def _touch(folder: Path) -> None:
    with (folder / "metrics.csv").open("a") as file:
        file.write("another hand\n")


ACTIONS: dict[str, Callable[[Path], Any]] = {"remove": shutil.rmtree, "replace": _replace, "touch": _touch}


def clock_runs_backwards() -> None:
    """An hour for each look at it."""
    hours = itertools.count()
    time.time = lambda: 1.7e9 - 3600 * next(hours)
    time.time_ns = lambda: int(1e9 * time.time())


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: no server outlives its tests
    serve()
