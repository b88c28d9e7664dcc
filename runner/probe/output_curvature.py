"""The curvature of the network's output along its own gradient: what Theorem 1 of the main paper is about."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from runner.cells import Cell
from runner.curvature.batch_loss import BatchLoss
from runner.curvature.mixing import mixes_samples
from runner.curvature.output import OwnCurvature, cross_terms, own_curvature
from runner.errors import BadInput
from runner.probe.base import Point, Probe

CROSS = ("cross_iii", "cross_iij", "cross_iji", "cross_ijk")


@dataclass(kw_only=True)
class OutputCurvature(Probe):
    """Q = grad f_i' (d2 f_i) grad f_i and s = |grad f_i|^2 of the output f_i = f(w; x_i), exact, over the batch's first
    `sample` samples: the means f, s, Q and Q_over_s (over samples with a gradient; empty if there is none), the
    standard deviation Q_std (dividing by the number of samples), and each sample's own numbers, with grad_f =
    |grad f_i|, in output_curvature.csv. Labels and loss do not enter.

    output: which of several outputs is f.
    cross: also the terms grad f_i' (d2 f_j) grad f_k of a batch's gHrg, over its first so many samples: their root
    mean squares cross_iii (one sample), cross_iij (j is also one of the two gradients' samples), cross_iji (both
    gradients are of one other sample) and cross_ijk (three different ones), and all of them as an array. Of m^3 terms
    m, 2m(m-1), m(m-1) and m(m-1)(m-2) are of these kinds. It takes m^2 Hessian-vector products of one sample each.
    """

    streams = False

    sample: int = 32
    output: int = 0
    cross: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sample < 1:
            raise BadInput(f"sample should be at least 1, found {self.sample}")
        if self.cross < 0 or self.cross == 1:
            raise BadInput(f"cross should be 0 or at least 2 (its terms are between samples), found {self.cross}")

    @property
    def double_backward(self) -> bool:  # type: ignore[override]
        return self.cross > 0

    def prepare(self, loss: BatchLoss, samples: int, measurements: int) -> None:
        if mixes_samples(loss):
            raise BadInput(
                "the network should treat each sample alone, found batch statistics or dropout in training mode: "
                "f_i then depends on the whole batch and has no gradient of its own; arch.norm=none, layer and group do"
            )
        with torch.no_grad():
            outputs = loss.outputs(loss.weights)
        if not isinstance(outputs, Tensor):
            raise BadInput(f"the network should return one tensor, found {type(outputs).__name__}")
        if not 0 <= self.output < outputs[0].numel():
            raise BadInput(f"output should be from 0 to {outputs[0].numel() - 1}, found {self.output}")
        try:
            own_curvature(loss, 2, self.output)
        except RuntimeError as error:
            raise BadInput(
                f"the network should run under torch.func.vmap and the Taylor sweep, found: {error}"
            ) from error

    @property
    def columns(self) -> tuple[str, ...]:
        return ("f", "s", "Q", "Q_std", "Q_over_s", *(CROSS if self.cross else ()))

    @property
    def table(self) -> tuple[str, ...]:
        return ("sample", "f", "grad_f", "s", "Q", "Q_over_s")

    def measure(self, point: Point) -> dict[str, Tensor | None]:
        own = self._own(point)
        with_gradient = own.along[own.grad_f > 0]
        cells: dict[str, Tensor | None] = {
            "f": own.f.mean(),
            "s": own.s.mean(),
            "Q": own.Q.mean(),
            "Q_std": own.Q.std(correction=0),
            "Q_over_s": with_gradient.mean() if len(with_gradient) else None,
        }
        return cells | (dict(zip(CROSS, root_mean_squares(self._cross(point)), strict=True)) if self.cross else {})

    def rows(self, point: Point) -> Iterator[dict[str, Cell]]:
        own = self._own(point)
        columns = (part.cpu() for part in (own.f, own.grad_f, own.s, own.Q, own.along))
        for i, (f, grad_f, s, Q, along) in enumerate(zip(*columns, strict=True)):
            ratio = along if grad_f > 0 else None
            yield {"sample": i, "f": f, "grad_f": grad_f, "s": s, "Q": Q, "Q_over_s": ratio}

    def files(self, point: Point) -> Iterable[tuple[str, Any]]:
        """The array T[i, j, k] of cross terms."""
        return [("cross", self._cross(point).cpu().numpy())] if self.cross else []

    def _own(self, point: Point) -> OwnCurvature:
        assert isinstance(point.loss, BatchLoss)
        if "own" not in point.memo:
            point.memo["own"] = own_curvature(point.loss, self.sample, self.output)
        return point.memo["own"]

    def _cross(self, point: Point) -> Tensor:
        assert isinstance(point.loss, BatchLoss)
        if "cross" not in point.memo:
            point.memo["cross"] = cross_terms(point.loss, self.cross, self.output)
        return point.memo["cross"]


def root_mean_squares(T: Tensor) -> list[Tensor | None]:
    """Of T (m, m, m): over its entries (i, i, i), over (i, i, j) and (j, i, i), over (i, j, i), and over those with
    three different indices; None where there are none of a kind."""
    i, j, k = torch.meshgrid(*[torch.arange(len(T), device=T.device)] * 3, indexing="ij")
    ij, jk, ik = i == j, j == k, i == k
    kinds = (ij & jk, ij ^ jk, ik & ~ij, ~(ij | jk | ik))
    return [T[kind].square().mean().sqrt() if kind.any() else None for kind in kinds]
