"""H, G and H_r as symmetric linear maps on flat vectors: all that a Krylov method or a trace estimate needs to know."""

from typing import Literal, get_args

import torch
from torch import Tensor

from runner.curvature.batch_loss import BatchLoss
from runner.curvature.exact import Product, gauss_newton_map, hessian_map, residual_map
from runner.curvature.streamed import Loss
from runner.curvature.vectors import flatten, unflatten

Matrix = Literal["H", "G", "H_r"]
MATRICES: tuple[Matrix, ...] = get_args(Matrix)
_maps = {"H": hessian_map, "G": gauss_newton_map, "H_r": residual_map}


class Operator:
    """v -> M v for M = H, G or H_r of a loss, exact, at its weights: (n,) to (n,), n trainable weights, in the order of
    the parameters, in the loss's dtype and on its device.

    The graph of one batch is kept from product to product; that of a streamed loss is made anew for each part.
    """

    def __init__(self, loss: Loss, matrix: Matrix) -> None:
        self._loss, self._map = loss, _maps[matrix]
        self.device, self.dtype = loss.device, loss.dtype
        self.n = sum(w.numel() for w in loss.weights.values())
        self._kept: Product | None = None

    def __call__(self, v: Tensor) -> Tensor:
        vector = unflatten(v, self._loss.weights)
        if isinstance(self._loss, BatchLoss):
            self._kept = self._kept or self._map(self._loss)
            return flatten(self._kept(vector))
        total = torch.zeros_like(v)
        for share, part in self._loss.parts():
            total.add_(flatten(self._map(part)(vector)), alpha=share)
        return total
