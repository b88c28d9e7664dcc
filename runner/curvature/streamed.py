"""The loss of more samples than are held at once: a sum over parts, each with its share of the samples."""

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from runner.curvature.batch_loss import BatchLoss
from runner.curvature.vectors import Vector

P = ParamSpec("P")
R = TypeVar("R")


def _alone(found: Any) -> Any:
    return found


class StreamedLoss:
    """L(w) = sum_b (N_b / N) L_b(w): a function of the weights as `BatchLoss` is, whose parts, with `share` = N_b / N,
    are built when needed.

    Batch statistics are those of each part. `total`: where several processes hold parts, the sum over all of them of
    what each has found over its own. They measure the same things in the same order then.
    """

    def __init__(self, parts: Callable[[], Iterator[BatchLoss]], total: Callable[[Any], Any] = _alone) -> None:
        self.parts, self.total = parts, total
        first = next(parts())
        self.weights, self.device, self.dtype = first.weights, first.device, first.dtype
        self.stacked = first.stacked

    def __call__(self, weights: Vector) -> Tensor:
        return additive(BatchLoss.__call__)(self, weights)

    def gradient(self, weights: Vector | None = None) -> Vector:
        """grad L, at the model's weights or at the given ones."""
        return additive(BatchLoss.gradient)(self, weights)


class ShardedLoss(StreamedLoss):
    """The loss of one batch of which each of several processes holds one part, this one `own`."""

    def __init__(self, own: BatchLoss, total: Callable[[Any], Any]) -> None:
        super().__init__(lambda: iter((own,)), total)


Loss = BatchLoss | StreamedLoss


def additive(measure: Callable[Concatenate[BatchLoss, P], R]) -> Callable[Concatenate[Loss, P], R]:
    """A measurement that is linear in the loss: that of a streamed loss is the sum over its parts. What it returns is a
    tensor, or a tree of them to torch's pytree."""

    @wraps(measure)
    def call(loss: Loss, *args: P.args, **kwargs: P.kwargs) -> R:
        if isinstance(loss, BatchLoss):
            return measure(loss, *args, **kwargs)
        found: Any = None
        for part in loss.parts():
            one = measure(part, *args, **kwargs)
            found = one if found is None else tree_map(torch.add, found, one)
        return loss.total(found)

    return call
