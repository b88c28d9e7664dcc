"""The network itself, kept along the path of training for whatever is asked of it afterwards."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from runner.curvature.batch_loss import BatchLoss
from runner.curvature.vectors import Vector, combine, norm
from runner.errors import BadInput
from runner.probe.base import Point, Probe


@dataclass(kw_only=True)
class Snapshot(Probe):
    """norm = |w|, distance = |w - w_0|, and the file `snapshot/weights-step<step>.pt`: {"model": parameters and
    buffers} under the keys of the network's state_dict, on the CPU, and {"unsaved": buffers} that have none, by name.

    w_0 are the weights at the probe's first measurement: the start of the run, unless the cadence leaves step 0 out.
    Buffers are those of w_step too, before the training-mode forward pass on its batch. What is kept does not depend on
    the place, and is written once.
    """

    names = ("norm", "distance")
    streams = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if "batch" not in self.on:
            raise BadInput(f"on should list batch (the weights are the same everywhere), found {list(self.on)}")
        self.start: dict[int, Vector] = {}  # of each replica

    def state(self) -> dict[str, Any]:
        return {"start": self.start}

    def load(self, state: dict[str, Any]) -> None:
        self.start = state["start"]

    def measure(self, point: Point) -> dict[str, Tensor | None]:
        w = point.loss.weights
        if point.replica not in self.start:
            self.start[point.replica] = {name: entry.clone() for name, entry in w.items()}
        start = {name: entry.to(w[name]) for name, entry in self.start[point.replica].items()}
        return {"norm": norm(w), "distance": norm(combine(w, -1, start))}

    def files(self, point: Point) -> Iterator[tuple[str, Any]]:
        if point.place == "batch":
            assert isinstance(point.loss, BatchLoss)
            yield "weights", {"model": own_state(point.loss), "unsaved": unsaved(point.loss)}


def own_state(loss: BatchLoss) -> dict[str, Tensor]:
    """Copies on the CPU of the network's parameters and buffers, as its `load_state_dict` takes them."""
    entries = {**loss.weights, **loss.frozen, **loss.buffers()}
    named = [*loss.model.named_parameters(), *loss.model.named_buffers()]
    names = {id(tensor): name for name, tensor in named}  # a tensor with several keys has one name
    keys = loss.model.state_dict(keep_vars=True).items()
    return {key: _kept(entries[names[id(tensor)]]) for key, tensor in keys if id(tensor) in names}


def unsaved(loss: BatchLoss) -> dict[str, Tensor]:
    """Copies of the buffers that are not persistent, which `state_dict` leaves out: the network depends on them too."""
    keyed = {id(tensor) for tensor in loss.model.state_dict(keep_vars=True).values()}
    missing = [name for name, buffer in loss.model.named_buffers() if id(buffer) not in keyed]
    held = loss.buffers()
    return {name: _kept(held[name]) for name in missing}


def _kept(entry: Tensor) -> Tensor:
    return entry.detach().clone().cpu()
