"""One of the processes of a run on several devices, as `runner.crew` starts it."""

import os
import pickle
import signal
import threading
import time
import traceback
from multiprocessing.connection import Connection
from queue import Queue
from typing import Any, NamedTuple

import torch

from runner import checkpoint, config  # noqa: F401  (config: the resolvers)
from runner.cells import Cell, Cells
from runner.folder import RunFolder
from runner.knobs import device_of
from runner.ranks import RankLost, Ranks
from runner.signals import STOPPING
from runner.work import one_process

SHOW_SECONDS = 0.1


class Assignment(NamedTuple):
    """What a rank is told first. `rendezvous`: a path by which the ranks find each other."""

    ranks: Ranks
    folder: RunFolder
    rendezvous: str
    threads: int


class Built(NamedTuple):
    """A rank's first report."""

    steps: int
    meta: dict[str, Any]


class Shown(NamedTuple):
    """What rank 0 says from time to time while it trains."""

    step: int
    row: Cells


class Failure(NamedTuple):
    """A rank's last report. `lost`: it failed because another one was gone."""

    error: Exception
    lost: bool


class Line:
    """The connection to the process that has started this one, and ends with it."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._told = connection, 0.0
        self._row: Cells = {}
        self.orders: Queue[Any] = Queue()
        self.stopping = 0  # the number of a signal
        self.send = connection.send
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        try:
            while True:
                order = self._connection.recv()
                if isinstance(order, signal.Signals):
                    self.stopping = order
                else:
                    self.orders.put(order)
        except (EOFError, OSError):
            os._exit(1)  # nobody is there any more to say how the run ended

    def show(self, step: int, row: Cells, last: bool) -> None:
        """Pass on what was measured, each number as it was last, as often as anybody can look at it, and at the end."""
        self._row |= {name: _number(cell) for name, cell in row.items() if cell is not None}
        now = time.monotonic()
        if last or now - self._told > SHOW_SECONDS:
            self._told = now
            self.send(Shown(step, self._row))


def _number(cell: Cell) -> Cell:
    return cell.item() if isinstance(cell, torch.Tensor) else cell


def main(descriptor: int) -> None:
    """`descriptor`: this process's end of the connection."""
    for number in STOPPING:  # the process that started this one gets them too, and decides when all stop
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    line = Line(Connection(descriptor))
    given: Assignment = line.orders.get()
    try:
        _work(line, given)
    except BaseException as error:
        line.send(Failure(_portable(error, given.ranks.rank), isinstance(error, RankLost)))
    line.orders.get()  # nothing comes: to be ended, when all others have reported


def _work(line: Line, given: Assignment) -> None:
    ranks, folder, cfg = given.ranks, given.folder, given.folder.cfg
    torch.set_num_threads(given.threads)
    device = ranks.device(device_of(cfg.device, cfg.precision))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    with one_process(cfg, ranks) as work:
        line.send(Built(work.steps, work.meta))
        continued: bool = line.orders.get()
        state = checkpoint.load(folder.path)[0] if continued else None

        def stop() -> str:
            number = int(ranks.of_first(torch.tensor(int(line.stopping))))
            return signal.Signals(number).name if number else ""

        def show(step: int, row: Cells) -> None:
            if ranks.rank == 0:
                line.show(step, row, step == work.steps)

        with ranks.joined(given.rendezvous, device):
            outcome = work.train(folder, state, stop, show)
    line.send(outcome)


def _portable(error: BaseException, rank: int) -> Exception:
    """The error with its traceback as a note, since tracebacks cannot be sent; what cannot be sent either, in words."""
    words = "".join(traceback.format_exception(error))
    for candidate in (error, RuntimeError(f"{type(error).__name__}: {error}")):
        candidate.add_note(f"in rank {rank}:\n{words}")
        try:
            if isinstance(pickle.loads(pickle.dumps(candidate)), Exception):
                break
        except Exception:  # its constructor wants other arguments than its message
            continue
    assert isinstance(candidate, Exception)
    return candidate
