"""Signals that ask for an orderly stop: noted when they come, acted on between two steps."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

# Ctrl-C, `kill`, a terminal that closes, and what clusters send some time before a limit is reached.
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)


class StopSignals:
    """While active, the first of the signals `STOPPING` is kept in `received` instead of ending the process; a second
    SIGINT interrupts at once. SIGHUP stays ignored where it is (nohup). Outside the main thread, where Python sets no
    handlers, it does nothing."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            deaf = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            noted = [number for number in STOPPING if number != signal.SIGHUP or not deaf]
            self._before = {number: signal.signal(number, self._note) for number in noted}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = self.received or signal.Signals(number)
