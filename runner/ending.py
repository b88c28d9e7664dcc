"""How a run, and each of several networks side by side, comes to its end."""

import math
from typing import Literal, NamedTuple

import torch

from runner.cells import Cells


class Ended(NamedTuple):
    """How a run ended, after how many updates, and why."""

    status: Literal["finished", "diverged", "interrupted"]
    step: int
    reason: str = ""


def endings(step: int, cells: Cells, until_grad_norm: float | None) -> dict[int, Ended]:
    """The networks, by their row of the stack, that are at their end: loss or gradient not finite, or |g| small."""
    loss, grad_norm = (torch.as_tensor(cells[name]) for name in ("train_loss", "grad_norm"))
    if until_grad_norm is None and math.isfinite((loss + grad_norm).sum().item()):
        return {}
    loss, grad_norm = loss.reshape(-1), grad_norm.reshape(-1)
    finite = torch.isfinite(loss + grad_norm)
    goes_on = finite if until_grad_norm is None else finite & (grad_norm >= until_grad_norm)
    ended = {}
    for row in (~goes_on).nonzero().flatten().tolist():
        if finite[row]:
            ended[row] = Ended("finished", step, f"gradient norm {grad_norm[row]:g} < {until_grad_norm:g}")
        else:
            ended[row] = Ended("diverged", step, f"loss {loss[row]:g}, gradient norm {grad_norm[row]:g}")
    return ended


def together(outcomes: dict[int, Ended], step: int) -> Ended:
    """The end of a run whose networks have all come to theirs before its last step."""
    if len(outcomes) == 1:
        return next(iter(outcomes.values()))
    diverged = sum(outcome.status == "diverged" for outcome in outcomes.values())
    reason = f"all {len(outcomes)} replicas have stopped, {diverged} of them diverged"
    return Ended("diverged" if diverged == len(outcomes) else "finished", step, reason)
