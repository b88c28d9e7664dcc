"""Learning rates over a run.

Those in this module are pure functions of the progress, as factors of the optimizer's initial rate. A linear warm-up
can stand in front of each: over its first `warmup` epochs (which may be a fraction) the factor rises from 0. Progress
is the number of updates done divided by the updates of an epoch, so that a milestone of 40 epochs is met exactly at
step 40 * steps_per_epoch, and the same step always has the same rate, resumed or not.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from runner.cells import Cell
from runner.errors import BadInput
from runner.probe.base import Probe


class Schedule(ABC):
    """What the loop asks for the rate of the coming update.

    `measures`: a probe of the schedule's own, for rates that follow from what is found on the batch of that update;
    whenever its cadence says so the loop measures, `take`s the result to the schedule, and asks for the rate after.
    """

    measures: Probe | None = None

    @abstractmethod
    def rate(self, initial: float, step: int, steps_per_epoch: int) -> float:
        """The rate of the update from w_step. `initial`: the optimizer's own."""

    def take(self, found: Mapping[str, Cell], initial: float) -> None:  # noqa: B027  (most measure nothing)
        """Take in what `measures` has found, under `schedule_<column>`."""

    def state(self) -> dict[str, Any]:
        """What a continued run needs to go on as if it had not been stopped; kept in the checkpoint."""
        return {}

    def load(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Take up what `state` gave."""


class Planned(Schedule):
    """A factor that the progress alone decides. `warmup` is in epochs."""

    def __init__(self, warmup: float) -> None:
        if not 0 <= warmup < math.inf:
            raise BadInput(f"schedule.warmup, in epochs, should be a number >= 0, found {warmup}.")
        self.warmup = warmup

    def rate(self, initial: float, step: int, steps_per_epoch: int) -> float:
        return initial * self.factor(step, steps_per_epoch)

    def factor(self, step: int, steps_per_epoch: int) -> float:
        """What multiplies the optimizer's initial rate for the update from w_step."""
        epoch = step / steps_per_epoch
        warm = epoch / self.warmup if epoch < self.warmup else 1.0
        return warm * self.after_warmup(epoch, steps_per_epoch)

    @abstractmethod
    def after_warmup(self, epoch: float, steps_per_epoch: int) -> float:
        """The factor without the warm-up's."""


class Constant(Planned):
    """The initial rate throughout."""

    def __init__(self, warmup: float = 0.0) -> None:
        super().__init__(warmup)

    def after_warmup(self, epoch: float, steps_per_epoch: int) -> float:
        return 1.0


class Halving(Planned):
    """The rate is multiplied by `gamma` at each of the `milestones`, in epochs from the start of the run."""

    def __init__(self, milestones: list[float], gamma: float = 0.5, warmup: float = 0.0) -> None:
        super().__init__(warmup)
        if any(not 0 <= milestone < math.inf for milestone in milestones):
            raise BadInput(f"schedule.milestones, in epochs, should be numbers >= 0, found {list(milestones)}.")
        if not 0 < gamma < math.inf:
            raise BadInput(f"schedule.gamma should be a number > 0, found {gamma}.")
        self.milestones: Sequence[float] = tuple(milestones)
        self.gamma = gamma

    def after_warmup(self, epoch: float, steps_per_epoch: int) -> float:
        return self.gamma ** sum(epoch >= milestone for milestone in self.milestones)


class Cosine(Planned):
    """From 1 at the end of the warm-up along half a cosine to `final` at the end of the run, and `final` from
    there on (Loshchilov and Hutter, "SGDR", equation 5 without restarts). The run takes `steps` updates if
    given, else `epochs`.
    """

    def __init__(self, epochs: float, steps: int | None = None, final: float = 0.0, warmup: float = 0.0) -> None:
        super().__init__(warmup)
        if not 0 <= final < math.inf:
            raise BadInput(f"schedule.final should be a number >= 0, found {final}.")
        self.epochs = epochs
        self.steps = steps
        self.final = final

    def after_warmup(self, epoch: float, steps_per_epoch: int) -> float:
        end = self.epochs if self.steps is None else self.steps / steps_per_epoch
        if epoch <= self.warmup:
            return 1.0
        progress = min(1.0, (epoch - self.warmup) / (end - self.warmup)) if end > self.warmup else 1.0
        cosine = (1 + math.cos(math.pi * progress)) / 2
        return cosine + self.final * (1 - cosine)
