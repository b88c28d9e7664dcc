"""How long things take, without making the device wait for it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Seconds, and for how many: "training steps", and measurements of each probe and of the "schedule".
Spent = dict[str, tuple[float, int]]
TRAINING = "training steps"


class Stopwatch:
    """Accumulates the time of pieces of work: by the clock on the CPU, by events on cuda, read only when asked."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        if not self._cuda:
            began = time.perf_counter()
            yield
            self._seconds += time.perf_counter() - began
            return
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        yield
        last.record()
        self._events.append((first, last))
        if len(self._events) >= 1000:
            self.seconds()

    def seconds(self) -> float:
        if self._events:
            torch.cuda.synchronize()
            self._seconds += sum(first.elapsed_time(last) for first, last in self._events) / 1000
            self._events.clear()
        return self._seconds


class Costs:
    """The time of training steps, of each probe's measurements and of the schedule's own."""

    def __init__(self, probes: list[str], device: torch.device) -> None:
        self.training, self.steps = Stopwatch(device), 0
        self.probes = {name: Stopwatch(device) for name in probes}
        self.measurements = dict.fromkeys(probes, 0)
        self.schedule, self.informed = Stopwatch(device), 0

    def spent(self) -> Spent:
        """So far, of this session."""
        found = {TRAINING: (self.training.seconds(), self.steps)}
        found |= {name: (watch.seconds(), self.measurements[name]) for name, watch in self.probes.items()}
        return found | ({"schedule": (self.schedule.seconds(), self.informed)} if self.informed else {})


def together(one: Spent, other: Spent) -> Spent:
    """What was spent in two sessions of a run."""
    return {
        name: (a + b, m + n)
        for name in one | other
        for (a, m), (b, n) in [(one.get(name, (0.0, 0)), other.get(name, (0.0, 0)))]
    }


def in_training_steps(spent: Spent) -> dict[str, float | None]:
    """The mean cost of a measurement of each probe in units of a training step; None if it never measured. Under
    `schedule` those by which the schedule has set the rate, if it does."""
    seconds, steps = spent[TRAINING]
    unit = seconds / max(steps, 1)
    return {
        name: seconds / count / unit if count and unit else None
        for name, (seconds, count) in spent.items()
        if name != TRAINING
    }
