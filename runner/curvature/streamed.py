"""The loss of more samples than are held at once: a mean over parts, each weighted by its number of samples."""

from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor

from runner.curvature.batch_loss import BatchLoss
from runner.curvature.vectors import Vector

P = ParamSpec("P")
R = TypeVar("R")
Part = tuple[float, BatchLoss]  # its share of all samples, and its mean loss


class StreamedLoss:
    """L(w) = sum_b (N_b / N) L_b(w): a function of the weights as `BatchLoss` is, whose parts are built when needed.

    Batch statistics are those of each part.
    """

    def __init__(self, parts: Callable[[], Iterator[Part]]) -> None:
        self.parts = parts
        first = next(parts())[1]
        self.weights, self.device, self.dtype = first.weights, first.device, first.dtype
        self.stacked = first.stacked

    def __call__(self, weights: Vector) -> Tensor:
        return additive(BatchLoss.__call__)(self, weights)

    def gradient(self, weights: Vector | None = None) -> Vector:
        """grad L, at the model's weights or at the given ones."""
        return additive(BatchLoss.gradient)(self, weights)


Loss = BatchLoss | StreamedLoss


def additive(measure: Callable[Concatenate[BatchLoss, P], R]) -> Callable[Concatenate[Loss, P], R]:
    """A measurement that is linear in the loss: that of a streamed loss is the weighted sum over its parts."""

    @wraps(measure)
    def call(loss: Loss, *args: P.args, **kwargs: P.kwargs) -> R:
        if isinstance(loss, BatchLoss):
            return measure(loss, *args, **kwargs)
        total: Any = None
        for share, part in loss.parts():
            total = _plus(total, share, measure(part, *args, **kwargs))
        return total

    return call


def _plus(total: Any, share: float, found: Any) -> Any:
    """total + share * found, entry by entry of dicts and dataclasses; total = None is zero."""
    if isinstance(found, Tensor):
        return share * found if total is None else torch.add(total, found, alpha=share)
    if isinstance(found, dict):
        return {name: _plus(total and total[name], share, entry) for name, entry in found.items()}
    names = [field.name for field in fields(found)]
    return type(found)(**{name: _plus(total and getattr(total, name), share, getattr(found, name)) for name in names})
