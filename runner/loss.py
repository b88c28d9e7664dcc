"""Losses, each the mean over the samples of a batch.

Every loss says by its `encoding` which targets it takes: `value`, floats (N, C), one-hot for classes;
`index`, class indices (N,), int64; `binary`, floats 0 or 1, (N, 1). They are written with plain operations,
twice differentiable in every mode of autograd and torch.func, where some of PyTorch's fused losses are not
(nn.MSELoss: jvp of grad).
"""

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from runner.errors import BadInput

Encoding = Literal["value", "index", "binary"]


class MSE(nn.Module):
    """factor |f - y|^2, summed over outputs, mean over samples; the factor is 1/2 unless said otherwise."""

    encoding: ClassVar[Encoding] = "value"

    def __init__(self, factor: float = 0.5) -> None:
        super().__init__()
        self.factor = _checked_factor(factor)

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Outputs (N, C), targets (N, C) to the mean loss ()."""
        return self.factor * _residual(outputs, targets).square().sum(1).mean()

    def residuals(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """r (N C,) with the mean loss L = 1/2 |r|^2, for optimizers that are made for sums of squares."""
        return math.sqrt(2 * self.factor / len(outputs)) * _residual(outputs, targets).flatten()


class Brier(nn.Module):
    """factor |softmax(f) - q|^2, summed over classes, mean over samples, where q is 1 - label_smoothing at the label
    plus label_smoothing / C at every class: Brier's score (1950) of the probabilities softmax(f), with the factor 1/2
    unless said otherwise.

    Not convex in f, so that the Gauss-Newton part G, that of the outputs f, may have negative eigenvalues; where
    softmax(f) = q it has none. Only smoothed labels are reached by finite outputs.
    """

    encoding: ClassVar[Encoding] = "index"

    def __init__(self, factor: float = 0.5, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.factor = _checked_factor(factor)
        self.label_smoothing = _checked_smoothing(label_smoothing)

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Outputs (N, C), targets (N,) to the mean loss ()."""
        return self.factor * self._errors(outputs, targets).square().sum(1).mean()

    def residuals(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """r (N C,) with the mean loss L = 1/2 |r|^2, for optimizers that are made for sums of squares."""
        return math.sqrt(2 * self.factor / len(outputs)) * self._errors(outputs, targets).flatten()

    def _errors(self, outputs: Tensor, targets: Tensor) -> Tensor:
        classes = torch.arange(outputs.shape[1], device=outputs.device)
        hot = (targets[:, None] == classes).to(outputs)  # F.one_hot looks at its values, which vmap has none of
        return outputs.softmax(1) - (1 - self.label_smoothing) * hot - self.label_smoothing / outputs.shape[1]


class Huber(nn.Module):
    """r^2 / 2 for |r| <= delta, else delta (|r| - delta / 2), r = f - y: summed over outputs, mean over
    samples.

    Its first two derivatives are bounded by delta and 1, as Theorem 1 of "Convex Behavior of Deep Neural
    Networks in Relation to the Layers' Width" asks.
    """

    encoding: ClassVar[Encoding] = "value"

    def __init__(self, delta: float = 1.0) -> None:
        super().__init__()
        if not 0 < delta < math.inf:
            raise BadInput(f"loss.delta should be a number > 0, found {delta}.")
        self.delta = delta

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Outputs (N, C), targets (N, C) to the mean loss ()."""
        r = _residual(outputs, targets)
        clipped = r.clamp(-self.delta, self.delta)
        return (clipped * (r - clipped / 2)).sum(1).mean()


class CrossEntropy(nn.Module):
    """-sum_c q_c log softmax(f)_c, mean over samples, where q is 1 - label_smoothing at the label plus
    label_smoothing / C at every class."""

    encoding: ClassVar[Encoding] = "index"

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = _checked_smoothing(label_smoothing)

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Outputs (N, C), targets (N,) to the mean loss ()."""
        log_p = F.log_softmax(outputs, 1)
        loss = -log_p.gather(1, targets[:, None]).mean()
        if self.label_smoothing == 0:
            return loss
        return (1 - self.label_smoothing) * loss - self.label_smoothing * log_p.mean()


class Logistic(nn.Module):
    """log(1 + e^f) - y f for one output f, the logit of class 1, and y in {0, 1}: mean over samples."""

    encoding: ClassVar[Encoding] = "binary"

    def __init__(self) -> None:  # so that the signature shows that there are no options
        super().__init__()

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Outputs (N, 1), targets (N, 1) to the mean loss ()."""
        _same_shape(outputs, targets)
        # Equal to log(1 + e^f) - y f, without the difference of two large numbers at y = 1. Above the
        # threshold softplus is the identity: the usual one, 20, is seen in float64.
        return F.softplus((1 - 2 * targets) * outputs, threshold=40.0).mean()


def _checked_factor(factor: float) -> float:
    if not 0 < factor < math.inf:
        raise BadInput(f"loss.factor should be a number > 0, found {factor}.")
    return factor


def _checked_smoothing(label_smoothing: float) -> float:
    if not 0 <= label_smoothing <= 1:
        raise BadInput(f"loss.label_smoothing should be between 0 and 1, found {label_smoothing}.")
    return label_smoothing


def _residual(outputs: Tensor, targets: Tensor) -> Tensor:
    _same_shape(outputs, targets)
    return outputs - targets


def _same_shape(outputs: Tensor, targets: Tensor) -> None:
    """Refuses to broadcast (N, 1) against (N,) to (N, N)."""
    if outputs.shape != targets.shape:
        raise BadInput(f"Targets should have the outputs' shape {tuple(outputs.shape)}, found {tuple(targets.shape)}.")
