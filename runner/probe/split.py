"""The exact split of the curvature along the gradient into its Gauss-Newton and its residual part."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from torch import Tensor, zeros_like

from runner.cells import Cell
from runner.curvature import forward, mixing, sweeping
from runner.curvature.batch_loss import BatchLoss
from runner.curvature.exact import split_by_double_backward
from runner.curvature.layers import layer_of
from runner.curvature.streamed import Loss
from runner.curvature.taylor import UnsupportedOperation
from runner.curvature.vectors import Vector
from runner.errors import BadInput
from runner.probe.base import Point, Probe


@dataclass(kw_only=True)
class Split(Probe):
    """gHg = g'Hg, gGg = g'Gg, gHrg = g'H_r g with H = G + H_r, exact.

    method: `taylor`, one forward sweep; `double_backward`, any network at 5 to 9 training steps.
    chunk: sweep so many samples at a time, for batches larger than memory (not where samples mix: batch statistics);
    `auto`: a third of a batch where that takes no longer; null: all at once.
    per: `layer` or `parameter`: also along each layer's or parameter's slice of g alone, the diagonal blocks'
    contributions, into split.csv.
    compile: fuse the rules of normalisations and activations by torch.compile; `auto`: where a run is long enough.
    """

    names: ClassVar[tuple[str, ...]] = ("gHg", "gGg", "gHrg")
    side_by_side = True

    method: Literal["taylor", "double_backward"] = "taylor"
    chunk: int | Literal["auto"] | None = "auto"
    per: Literal["layer", "parameter"] | None = None
    compile: bool | Literal["auto"] = "auto"

    at_a_time: int | None = field(init=False, default=None)
    chunks_tried: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.chunk, int) and (self.chunk < 1 or self.method != "taylor"):
            raise BadInput(
                f"chunk should be auto, null, or at least 1 with method=taylor, found {self.chunk} with {self.method}"
            )

    @property
    def double_backward(self) -> bool:  # type: ignore[override]
        return self.method == "double_backward"

    def prepare(self, loss: BatchLoss, samples: int, measurements: int) -> None:
        auto = self.compile == "auto" and self.method == "taylor"
        self.at_a_time = None if self.chunk == "auto" else self.chunk
        self.compiled = sweeping.compiling_pays(loss, samples, measurements) if auto else self.compile is True
        if self.method != "taylor":
            return
        try:
            forward.split(loss, loss.gradient())
        except UnsupportedOperation as error:
            raise BadInput(str(error)) from error
        if self.chunk == "auto":
            self.at_a_time = sweeping.fitting_chunk(loss, samples)
        elif self.chunk is not None and mixing.mixes_samples(loss):
            raise BadInput(
                "chunk should be null for this network: a sample's output depends on the rest of its batch "
                "(batch statistics or dropout in training mode), so that micro-batches would measure another loss"
            )

    def state(self) -> dict[str, Any]:
        return {"compiled": self.compiled, "at_a_time": self.at_a_time, "chunks_tried": self.chunks_tried}

    def load(self, state: dict[str, Any]) -> None:
        self.compiled, self.at_a_time = state["compiled"], state["at_a_time"]
        self.chunks_tried = state.get("chunks_tried", True)

    def try_chunks(self, loss: BatchLoss) -> None:
        """The few samples of `prepare` do not tell of networks in which only many meet (experts of a capacity); the
        first batch that is larger than a chunk does, as far as its weights let them meet."""
        if self.at_a_time is None or loss.samples <= self.at_a_time:
            return
        self.chunks_tried = True
        if not mixing.chunks_differ(loss, self.at_a_time):
            return
        if self.chunk != "auto":
            raise BadInput(
                f"probe.split.chunk should be null for this network: of {self.at_a_time} samples at a time its outputs "
                "are others than of the whole batch"
            )
        self.at_a_time = None

    def measure(self, point: Point) -> dict[str, Tensor | None]:
        if not self.chunks_tried and isinstance(point.loss, BatchLoss):
            self.try_chunks(point.loss)
        return self._along(point.loss, point.g)

    @property
    def table(self) -> tuple[str, ...]:
        return (self.per, *self.names) if self.per else ()

    def rows(self, point: Point) -> Iterator[dict[str, Cell]]:
        """For each slice: v is g there and zero elsewhere."""
        slices: dict[str, Vector] = {}
        for name, entry in point.g.items():
            slices.setdefault(layer_of(name) if self.per == "layer" else name, {})[name] = entry
        for name, v in slices.items():
            yield {str(self.per): name, **self._along(point.loss, v)}

    def _along(self, loss: Loss, v: Vector) -> dict[str, Tensor | None]:
        if self.method == "taylor":
            parts = forward.split(loss, v, chunk=self.at_a_time, compiled=self.compiled)
        else:
            whole = {name: v.get(name, zeros_like(entry)) for name, entry in loss.weights.items()}
            parts = split_by_double_backward(loss, whole)
        return {"gHg": parts.gHg, "gGg": parts.gGg, "gHrg": parts.gHrg}
