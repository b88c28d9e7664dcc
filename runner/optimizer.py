"""Levenberg-Marquardt: for small networks and sums of squares, down to the rounding errors of float64."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from runner.errors import BadInput

ROWS_AT_ONCE = 16  # of the Jacobian, in one backward pass
COPIES = 5  # of the Jacobian's size: what was seen at the peak of a step


class SumOfSquares(Protocol):
    """What the optimizer is given to look at."""

    def residuals(self) -> Tensor:
        """r (m,) with L = 1/2 |r|^2, differentiable in the parameters."""
        ...


class LevenbergMarquardt(torch.optim.Optimizer):
    """w <- w + lr h for L = 1/2 |r(w)|^2, where h minimises |r + J h|^2 + lambda |h|^2 and J = dr/dw (Levenberg 1944,
    Marquardt 1963).

    With the thin singular value decomposition J = U S V', h = -V diag(s_i / (s_i^2 + lambda)) U'r: J'J, which has the
    square of J's condition number, is never made, and J may have more columns than rows. lambda is `damping` times the
    largest s_i^2. A step is taken only if the loss falls; until then the damping grows, and for the next step it is
    set by the ratio of what was gained to what the linear model promised (Nielsen 1999, "Damping parameter in
    Marquardt's method"). Where no step that is large enough to be seen in w makes the loss fall, w stays.

    `lr` below 1 shortens the steps; `damping` is that of the first one. The Jacobian and its decomposition
    may take `memory_gb`, in 10^9 bytes.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float = 1.0, damping: float = 1e-3, memory_gb: float = 4.0
    ) -> None:
        if not 0 < lr <= 1:
            raise BadInput(f"optimizer.lr should be a number > 0 and at most 1, the whole step, found {lr}")
        if not damping > 0:
            raise BadInput(f"optimizer.damping should be a number > 0, found {damping}")
        super().__init__([{"params": list(params)}], {"lr": lr, "damping": damping})
        self.memory_gb = memory_gb

    def prepare(self, loss_fn: nn.Module, residuals: int, full_batch: bool) -> None:
        """Raises BadInput for a run that is not one for this optimizer; `residuals` = samples times outputs."""
        needs = f"with {type(self).__name__}"
        if not hasattr(loss_fn, "residuals"):
            raise BadInput(f"loss should be mse or brier, a sum of squares, {needs}, found {type(loss_fn).__name__}")
        parameters = self.param_groups[0]["params"]
        if parameters[0].dtype != torch.float64:
            raise BadInput(f"precision should be fp64 {needs}, found parameters in {parameters[0].dtype}")
        if not full_batch:
            raise BadInput(f"batch_size should be null, the full batch, {needs}, found a part of the training data")
        count = sum(p.numel() for p in parameters)
        needed = 8e-9 * COPIES * residuals * count
        if needed > self.memory_gb:
            raise BadInput(
                f"optimizer.memory_gb should be at least {math.ceil(needed)} for a Jacobian of {residuals} residuals by"
                f" {count} parameters, found {self.memory_gb:g}; give more if it is there, or take a smaller network"
            )

    @torch.no_grad()
    def step(self, closure: SumOfSquares) -> None:  # type: ignore[override]
        """One step that makes the loss fall, if there is one."""
        group = self.param_groups[0]
        parameters, lr = group["params"], group["lr"]
        w, (r, jacobian) = _joined(parameters), linearised(closure.residuals, parameters)
        v, s, ut = torch.linalg.svd(jacobian.T, full_matrices=False)  # of J' = V S U', for which LAPACK is faster
        c = ut @ r
        eps = torch.finfo(w.dtype).eps
        damping, growth = max(group["damping"], eps**2), 2.0  # singular values below eps s_1 are rounding errors
        while True:
            inverse = s / (s.square() + damping * s[0].square())
            h = v @ (-lr * inverse * c)
            if not torch.linalg.vector_norm(h) > eps * torch.linalg.vector_norm(w):  # or h is nan, since J = 0
                _place(w, parameters)
                return
            _place(w + h, parameters)
            gained = (r.square().sum() - closure.residuals().square().sum()) / 2
            if gained > 0:
                break
            damping, growth = damping * growth, 2 * growth
        part = lr * inverse * s  # of each component of r, that the linear model promised to take away
        ratio = gained / (c.square() * part * (1 - part / 2)).sum()
        group["damping"] = damping * max(1 / 3, 1 - (2 * ratio.item() - 1) ** 3)


def linearised(residuals: Callable[[], Tensor], parameters: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """r (m,) and J = dr/dw (m, n) at the parameters, one after the other."""
    with torch.enable_grad():
        r = residuals()
    jacobian = r.new_empty(len(r), sum(p.numel() for p in parameters))
    for rows, into in zip(torch.eye(len(r)).to(r).split(ROWS_AT_ONCE), jacobian.split(ROWS_AT_ONCE), strict=True):
        gradients = torch.autograd.grad(
            r, parameters, rows, retain_graph=True, is_grads_batched=True, allow_unused=True, materialize_grads=True
        )
        parts = zip(gradients, parameters, strict=True)  # where r does not depend on p, one zero stands for all rows
        torch.cat([g.expand(len(rows), *p.shape).flatten(1) for g, p in parts], 1, out=into)
    return r.detach(), jacobian


def _joined(parameters: Sequence[Tensor]) -> Tensor:
    return torch.cat([p.flatten() for p in parameters])


def _place(w: Tensor, parameters: Sequence[Tensor]) -> None:
    """Write the parts of w into the parameters."""
    for p, part in zip(parameters, w.split([p.numel() for p in parameters]), strict=True):
        p.copy_(part.view_as(p))
