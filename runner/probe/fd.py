"""The main paper's finite-difference estimate, beside the value it takes when it sees nothing of the curvature."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from torch import Tensor

from runner.curvature.difference import Form, gradient_difference, loss_difference
from runner.curvature.vectors import dot
from runner.errors import BadInput
from runner.probe.base import Point, Probe

Step = float | Literal["lr"]


@dataclass(kw_only=True)
class FiniteDifference(Probe):
    """gHg ~ g'[grad L_B(w) - grad L_B(w - mu g)] / mu (Convex Behavior, Eq. 2-3), and decorrelated = g'g / mu, the
    value that the estimate takes when the second gradient is orthogonal to the first.

    mu: `lr` (the current learning rate, the paper's choice), a number, or a list, which gives one set of columns each
    (`gHg_mu1e-3`); a cell is empty where mu is 0. In units of g: the step in weight space is mu |g|.
    form: `gradient` as above; `loss`: 2 [L_B(w - mu g) - L_B(w) + mu g'g] / mu^2; `next_batch`: the second gradient is
    that of the next minibatch.
    """

    side_by_side = True

    mu: Step | Sequence[Step] = "lr"
    form: Form = "gradient"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.steps: list[Step] = [self.mu] if isinstance(self.mu, str | int | float) else list(self.mu)
        odd = [mu for mu in self.steps if mu != "lr" and not (isinstance(mu, int | float) and 0 < mu < math.inf)]
        if odd or not self.steps or len(set(self.steps)) != len(self.steps):
            raise BadInput(f"mu should be lr, a positive finite number, or a list of different ones, found {self.mu!r}")
        listed = not isinstance(self.mu, str | int | float)
        self.suffixes = [f"_mu{compact(mu)}" if listed else "" for mu in self.steps]

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(f"{name}{suffix}" for suffix in self.suffixes for name in ("gHg", "decorrelated"))

    def measure(self, point: Point) -> dict[str, Tensor | None]:
        cells: dict[str, Tensor | None] = {}
        for step, suffix in zip(self.steps, self.suffixes, strict=True):
            mu = point.lr if step == "lr" else float(step)
            cells[f"gHg{suffix}"] = self.estimate(point, mu) if mu > 0 else None
            cells[f"decorrelated{suffix}"] = dot(point.at_w(), point.g, point.loss.stacked) / mu if mu > 0 else None
        return cells

    def estimate(self, point: Point, mu: float) -> Tensor:
        if self.form == "loss":
            return loss_difference(point.loss, point.g, mu, at_w=point.at_w())
        other = point.next() if self.form == "next_batch" else None
        return gradient_difference(point.loss, point.g, mu, at_w=point.at_w(), other=other).gHg


def compact(mu: Step) -> str:
    """0.001 -> 1e-3, 0.25 -> 2.5e-1, lr -> lr: the shortest digits, for column names."""
    if isinstance(mu, str):
        return mu
    digits = Decimal(repr(float(mu))).normalize().as_tuple()
    mantissa = "".join(map(str, digits.digits))
    exponent = int(digits.exponent) + len(mantissa) - 1
    return f"{mantissa[0]}{'.' + mantissa[1:] if mantissa[1:] else ''}e{exponent}"
