"""What an optimizer that looks at a loss more than once a step is given to look at."""

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from runner.curvature.batch_loss import BatchLoss
from runner.curvature.vectors import Vector
from runner.errors import BadInput
from runner.experiment import Experiment


def needs_closure(optimizer: torch.optim.Optimizer) -> bool:
    """Whether `step` has to be given a closure: the optimizer evaluates the loss at points of its own choice. Such a
    one cannot move several networks side by side, since each would need other points."""
    return _requires_closure(type(optimizer).step)


@cache
def _requires_closure(step: Callable[..., Any]) -> bool:
    closure = inspect.signature(step).parameters.get("closure")
    return closure is not None and closure.default is closure.empty


@runtime_checkable
class Particular(Protocol):
    """An optimizer that cannot train everything."""

    def prepare(self, loss_fn: nn.Module, residuals: int, full_batch: bool) -> None:
        """Raises BadInput for a run that it cannot do, with `residuals` = samples times outputs of a batch."""
        ...


def check(run: Experiment) -> None:
    """Raises BadInput where the optimizer needs a closure and the run is not one for it."""
    optimizer, name = run.optimizer, type(run.optimizer).__name__
    if not needs_closure(optimizer):
        return
    if run.ranks.count > 1:
        raise BadInput(f"devices should be 1 with {name}, which evaluates a loss by itself, found {run.ranks.count}")
    if run.clip_norm is not None:
        raise BadInput(f"clip_norm should be null with {name}, which takes gradients itself, found {run.clip_norm}")
    if run.mixed:
        raise BadInput(f"precision should be fp32 or fp64 with {name}, which compares losses, found {run.precision}")
    if run.schedule.rate(run.rates[0], 0, run.batches.steps_per_epoch) == 0:
        raise BadInput(
            f"the first rate should be above 0 with {name}, which searches along a step, found 0 (optimizer.lr, "
            "schedule.warmup)"
        )
    if isinstance(optimizer, Particular):
        optimizer.prepare(run.loss_fn, run.batches.size * run.task.outputs, run.batches.steps_per_epoch == 1)


class Closure:
    """The loss of a step's batch at whatever point the optimizer has moved the model's parameters to.

    `loss` is the batch's, a function: it makes the same random draws at every point, and moves no buffers. Running
    statistics take in the one forward pass that the step was measured by, as with every other optimizer.
    """

    def __init__(self, loss: BatchLoss, loss_fn: Any) -> None:
        self._loss, self._loss_fn = loss, loss_fn
        self._parameters: Vector = {n: p for n, p in loss.model.named_parameters() if p.requires_grad}

    def __call__(self) -> float:
        """L; its gradient lies in the parameters' `.grad` afterwards, as torch.optim wants it."""
        for p in self._parameters.values():
            p.grad = None
        with torch.enable_grad():
            loss = self._loss(self._parameters)
            loss.backward()
        return loss.item()

    def residuals(self) -> Tensor:
        """r (m,) with L = 1/2 |r|^2, where the loss is a sum of squares and says so (see runner.loss.MSE);
        differentiable in the parameters where gradients are enabled."""
        return self._loss_fn.residuals(self._loss.outputs(self._parameters), self._loss.targets)
