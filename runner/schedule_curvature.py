"""A rate that follows from the curvature of the loss along the gradient, measured on the batch of the coming update."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from runner.cells import Cell
from runner.curvature.vectors import dot
from runner.errors import BadInput
from runner.probe.base import Point
from runner.probe.split import Split
from runner.schedule import Schedule


@dataclass(kw_only=True)
class AlongGradient(Split):
    """g'g and g'Mg for M = G or H, exact."""

    names = ("gg", "gMg")

    matrix: Literal["G", "H"] = "G"

    def measure(self, point: Point) -> dict[str, Tensor | None]:
        parts = super().measure(point)
        return {"gg": dot(point.g, point.g), "gMg": parts["gGg" if self.matrix == "G" else "gHg"]}


class Curvature(Schedule):
    """With kappa = g'Mg / g'g, the curvature along g, and mu the rate: mu kappa is a number without a unit. A step that
    takes the quadratic model along g to its minimum has mu kappa = 1, and beyond 2 it does not fall any more.

    Every `every` steps kappa is measured on the batch of the coming update, and the rate stays as it is in between
    (better an odd number of them: late full-batch training often goes to and fro with period 2).
    mode: `step`, mu = damping / mean(kappa), the mean being exponential: each measurement forgets all before it but for
    the share `memory`. It is one of curvatures, not of rates, since that is the cautious side (Jensen). Where kappa is
    not positive it suggests no step: the measurement is left out, and the last rate kept.
    `target`, mu is led to where mu kappa = target: each measurement multiplies it by growth^(1 - mu kappa / target), so
    that the mean of mu kappa over a path is the target; by the full growth where kappa is not positive, and never down
    beyond target / kappa. Near-zero curvature at large gradients is where this mode takes large steps ("Convex
    Behavior", Discussion).
    matrix: G, whose curvature is never negative where the loss is convex in the outputs, or H.
    growth: the most by which the rate rises from one measurement to the next, from the optimizer's own on, which it
    starts with. least, largest: bounds of the rate.
    method: that of `runner.probe.split.Split`.
    """

    def __init__(
        self,
        mode: Literal["step", "target"] = "step",
        matrix: Literal["G", "H"] = "G",
        every: int = 9,
        damping: float = 1.0,
        target: float = 1.0,
        memory: float = 0.9,
        growth: float = 1.5,
        least: float = 1e-6,
        largest: float = 1e3,
        method: Literal["taylor", "double_backward"] = "taylor",
    ) -> None:
        for key, value in (("damping", damping), ("target", target), ("least", least), ("largest", largest)):
            if not 0 < value < math.inf:
                raise BadInput(f"schedule.{key} should be a number > 0, found {value}")
        if not least <= largest:
            raise BadInput(f"schedule.largest should be at least schedule.least={least}, found {largest}")
        if not 0 <= memory < 1:
            raise BadInput(f"schedule.memory should be a number from 0 to below 1, found {memory}")
        if not 1 < growth < math.inf:
            raise BadInput(f"schedule.growth should be a number > 1, found {growth}")
        if every < 1:
            raise BadInput(f"schedule.every should be at least 1, found {every}")
        self.measures: AlongGradient = AlongGradient(every=every, ends=False, method=method, matrix=matrix)
        self.mode, self.damping, self.target, self.memory = mode, damping, target, memory
        self.growth, self.least, self.largest = growth, least, largest
        self._rate: float | None = None
        self._mean: float | None = None  # of the positive curvatures so far

    def rate(self, initial: float, step: int, steps_per_epoch: int) -> float:
        return initial if self._rate is None else self._rate

    def take(self, found: Mapping[str, Cell], initial: float) -> None:
        gg, gMg = (float(torch.as_tensor(found[f"schedule_{name}"])) for name in ("gg", "gMg"))
        last = initial if self._rate is None else self._rate
        kappa = gMg / gg if gg > 0 else math.nan
        if math.isfinite(kappa):
            wanted = self._suggested(kappa, last) if self.mode == "step" else self._led(kappa, last)
            self._rate = min(max(wanted, self.least), self.largest)

    def _suggested(self, kappa: float, last: float) -> float:
        if kappa <= 0:
            return last
        self._mean = kappa if self._mean is None else self.memory * self._mean + (1 - self.memory) * kappa
        return min(self.damping / self._mean, self.growth * last)

    def _led(self, kappa: float, last: float) -> float:
        x = max(last * kappa / self.target, 0.0)
        return last * max(self.growth ** (1 - x), 1 / x if x > 1 else 0.0)

    def state(self) -> dict[str, Any]:
        return {"rate": self._rate, "mean": self._mean, "measures": self.measures.state()}

    def load(self, state: dict[str, Any]) -> None:
        self._rate, self._mean = state["rate"], state["mean"]
        self.measures.load(state["measures"])
