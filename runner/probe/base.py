"""What a probe is: a cadence, a precision, the batches it looks at, and one method that measures."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from runner.cadence import Cadence
from runner.curvature.batch_loss import BatchLoss
from runner.curvature.vectors import Vector, dot
from runner.errors import BadInput
from runner.records import Cell

Place = Literal["batch", "heldout"]


@dataclass(frozen=True)
class Point:
    """Where a probe measures: the loss of one batch at w_step, and the direction g there.

    `loss`: L_B, in the probe's dtype. `g`: the gradient of the training batch's loss, before clipping and weight decay.
    `at_w`: grad L_B(w); the same as `g` unless B is a held-out batch. `lr`: the rate of the coming update.
    `next`: the loss of the minibatch after this one, for estimates that mix batches.
    """

    loss: BatchLoss
    g: Vector
    at_w: Callable[[], Vector]
    lr: float
    next: Callable[[], BatchLoss]


@dataclass(kw_only=True)
class Probe(ABC):
    """A measurement along the path of training. A new one is a subclass, a yaml in `conf/probe` and a test.

    every, every_epochs, per_decade, at, ends: its cadence (see `Cadence`).
    dtype: fp32 or fp64; null is fp64 where precision=fp64, else fp32.
    on: batch, heldout or both: the training batch of the step, and one disjoint from it, along the same g.
    """

    names: ClassVar[tuple[str, ...]]

    every: int | None = None
    every_epochs: int | None = None
    per_decade: int | None = None
    at: Sequence[int] = ()
    ends: bool = True
    dtype: Literal["fp32", "fp64"] | None = None
    on: Sequence[Place] = ("batch",)

    def __post_init__(self) -> None:
        self.cadence = Cadence(self.every, self.every_epochs, self.per_decade, tuple(self.at), self.ends)
        if not self.on or len(set(self.on)) != len(self.on):
            raise BadInput(f"on should list batch, heldout or both, each once; found {list(self.on)}")

    def prepare(self, loss: BatchLoss, samples: int, measurements: int) -> None:  # noqa: B027  (most need not)
        """Before the run: refuse, by BadInput, what cannot be measured, and make choices that depend on the run.

        `loss`: of a few samples. `samples`: in a whole batch. `measurements`: how many of them are planned.
        """

    def state(self) -> dict[str, Any]:
        """What a continued run needs to go on as if it had not been stopped; kept in the checkpoint."""
        return {}

    def load(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Take up what `state` gave."""

    @property
    def columns(self) -> tuple[str, ...]:
        """What `measure` returns, known before the first step."""
        return self.names

    @abstractmethod
    def measure(self, point: Point) -> Mapping[str, Tensor | None]:
        """A 0-d tensor for each column; None: not defined here (the cell stays empty)."""

    @property
    def table(self) -> tuple[str, ...]:
        """The columns of the probe's own long-form CSV, for results that are vectors; none: there is no such file."""
        return ()

    def rows(self, point: Point) -> Iterable[Mapping[str, Cell]]:
        """The rows that this measurement adds to it."""
        return ()

    def all_columns(self, with_gg: bool) -> list[str]:
        """The columns over all places; `with_gg`: and g'g, where g was recomputed in the probe's dtype."""
        columns = [f"{prefix(place)}{name}" for place in self.on for name in self.columns]
        return [*columns, "gg"] if with_gg else columns

    def measure_all(self, point_at: Callable[[Place], Point], with_gg: bool) -> dict[str, Tensor | None]:
        cells: dict[str, Tensor | None] = {}
        for place in self.on:
            point = point_at(place)
            cells |= {f"{prefix(place)}{name}": value for name, value in self.measure(point).items()}
            if with_gg:
                cells["gg"] = dot(point.g, point.g)
        return cells


def prefix(place: Place) -> str:
    return "" if place == "batch" else f"{place}_"
