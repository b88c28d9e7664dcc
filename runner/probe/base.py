"""What a probe is: a cadence, a precision, the batches it looks at, and one method that measures."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

from torch import Tensor

from runner.cadence import Cadence
from runner.cells import Cell
from runner.curvature.batch_loss import BatchLoss
from runner.curvature.operator import Matrix, Operator
from runner.curvature.streamed import Loss
from runner.curvature.vectors import Vector, dot
from runner.errors import BadInput

Place = Literal["batch", "heldout", "sample", "dataset"]
PLACES: tuple[Place, ...] = get_args(Place)


@dataclass(frozen=True)
class Point:
    """Where a probe measures: the loss of one batch, or of the whole data set, at w_step, and the direction g there.

    `loss`: L_B, in the probe's dtype. `g`: the gradient of the training batch's loss, before clipping and weight decay.
    `at_w`: grad L_B(w); the same as `g` where B is the training batch. `lr`: the rate of the coming update.
    `next`: the loss of the minibatch after this one, for estimates that mix batches.
    `operator`: H, G or H_r of L_B as a map on flat vectors. `seed`: of the probe's own random draws at this step.
    `place`, `replica`: which batch and network this is, for what a probe keeps from one measurement to the next.
    `memo`: empty at first; what the methods of one probe share at this point.
    """

    loss: Loss
    g: Vector
    at_w: Callable[[], Vector]
    lr: float
    next: Callable[[], Loss]
    operator: Callable[[Matrix], Operator]
    seed: int
    place: Place = "batch"
    replica: int = 0
    memo: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class Probe(ABC):
    """A measurement along the path of training. A new one is a subclass, a yaml in `conf/probe` and a test.

    every, every_epochs, per_decade, at, ends: its cadence (see `Cadence`).
    dtype: fp32 or fp64; null is fp64 where precision=fp64, else fp32.
    on: where it looks, a list of: batch, the training batch of the step; heldout, one disjoint from it; sample, the
    same random `samples` of the training data in every run; dataset, all training data, streamed in batches. The last
    two are not augmented. g is that of the training batch everywhere.
    """

    names: ClassVar[tuple[str, ...]]
    streams: ClassVar[bool] = True  # whether it can measure a loss that is held in parts; else every rank has it whole
    double_backward: ClassVar[bool] = False  # whether it has autograd differentiate the loss twice
    side_by_side: ClassVar[bool] = False  # whether it takes stacked networks, numbers (R,); else one after the other

    every: int | None = None
    every_epochs: int | None = None
    per_decade: int | None = None
    at: Sequence[int] = ()
    ends: bool = True
    dtype: Literal["fp32", "fp64"] | None = None
    on: Sequence[Place] = ("batch",)
    samples: int = 1000

    def __post_init__(self) -> None:
        self.cadence = Cadence(self.every, self.every_epochs, self.per_decade, tuple(self.at), self.ends)
        choices = PLACES if self.streams else PLACES[:-1]
        if not self.on or len(set(self.on)) != len(self.on) or set(self.on) - set(choices):
            raise BadInput(f"on should list some of {', '.join(choices)}, each once; found {list(self.on)}")
        if self.samples < 1:
            raise BadInput(f"samples should be at least 1, found {self.samples}")

    def prepare(self, loss: BatchLoss, samples: int, measurements: int) -> None:  # noqa: B027  (most need not)
        """Before the run: refuse, by BadInput, what cannot be measured, and make choices that depend on the run.

        `loss`: of a few samples. `samples`: in the largest batch it is given. `measurements`: how many are planned.
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

    def files(self, point: Point) -> Iterable[tuple[str, Any]]:
        """Files that this measurement adds below the folder `<run>/<probe>/`: a name, to which step and replica are
        added, and a NumPy array (.npy) or a dict of tensors and plain values (.pt)."""
        return ()

    def all_columns(self, with_gg: bool) -> list[str]:
        """The columns over all places; `with_gg`: and g'g, where g was recomputed in the probe's dtype."""
        columns = [f"{prefix(place)}{name}" for place in self.on for name in self.columns]
        return [*columns, "gg"] if with_gg else columns

    def measure_all(self, point_at: Callable[[Place], Point], with_gg: bool) -> dict[str, Tensor | None]:
        cells: dict[str, Tensor | None] = {}
        for place in self.on:
            point = point_at(place)
            found = self.measure(point)
            if odd := found.keys() - set(self.columns):
                raise ValueError(
                    f"{type(self).__name__}.measure should return its columns {', '.join(self.columns)}, found "
                    f"{', '.join(sorted(odd))}"
                )
            cells |= {f"{prefix(place)}{name}": value for name, value in found.items()}
            if with_gg:
                cells["gg"] = dot(point.g, point.g, point.loss.stacked)
        return cells


def prefix(place: Place) -> str:
    return "" if place == "batch" else f"{place}_"
