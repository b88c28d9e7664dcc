"""When something is due: asked at every step, answers by step and epoch alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import lcm, log10

from runner.errors import BadInput


@dataclass(frozen=True)
class Cadence:
    """The union of what is set: every n steps from 0 on, every n epochs, n log-spaced steps a decade, listed steps, and
    (`ends`) the first and the last step of the run."""

    every: int | None = None
    every_epochs: int | None = None
    per_decade: int | None = None
    at: Sequence[int] = ()
    ends: bool = False

    def __post_init__(self) -> None:
        for key in ("every", "every_epochs", "per_decade"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise BadInput(f"{key} should be null or at least 1, found {value}")
        if any(step < 0 for step in self.at):
            raise BadInput(f"at should list steps >= 0, found {list(self.at)}")

    def due(self, step: int, steps_per_epoch: int, last: int) -> bool:
        return (
            (self.every is not None and step % self.every == 0)
            or (self.every_epochs is not None and step % (self.every_epochs * steps_per_epoch) == 0)
            or (self.per_decade is not None and _log_spaced(step, self.per_decade))
            or step in self.at
            or (self.ends and step in (0, last))
        )

    def count(self, steps_per_epoch: int, last: int) -> int:
        """How many of the steps 0 … last are due, without a look at each."""
        epochs = [self.every_epochs * steps_per_epoch] if self.every_epochs is not None else []
        periods = epochs + ([self.every] if self.every is not None else [])
        regular = sum(last // period + 1 for period in periods)
        if len(periods) == 2:
            regular -= last // lcm(*periods) + 1
        others = {*self.at, *((0, last) if self.ends else ()), *self._powers(last)}
        return regular + sum(step <= last and all(step % period for period in periods) for step in others)

    def _powers(self, last: int) -> set[int]:
        """The log-spaced steps up to the first one beyond `last`."""
        if self.per_decade is None or last < 1:
            return set()
        return {round(10 ** (k / self.per_decade)) for k in range(int(self.per_decade * log10(last)) + 2)}


def _log_spaced(step: int, per_decade: int) -> bool:
    """Whether `step` is round(10^(k / per_decade)) for some k >= 0."""
    if step < 1:
        return False
    k = round(per_decade * log10(step))
    return any(round(10 ** (j / per_decade)) == step for j in (k - 1, k, k + 1) if j >= 0)
