"""H, G and H_r as symmetric linear maps on flat vectors: all that a Krylov method or a trace estimate needs to know."""

from functools import cache
from typing import Literal, get_args

from torch import Tensor

from runner.curvature.batch_loss import BatchLoss
from runner.curvature.exact import gauss_newton_map, hessian_map, residual_map
from runner.curvature.streamed import Loss, ShardedLoss, additive
from runner.curvature.vectors import Vector, flatten, unflatten

Matrix = Literal["H", "G", "H_r"]
MATRICES: tuple[Matrix, ...] = get_args(Matrix)
_maps = {"H": hessian_map, "G": gauss_newton_map, "H_r": residual_map}


class Operator:
    """v -> M v for M = H, G or H_r of a loss, exact, at its weights: (n,) to (n,), n trainable weights, in the order of
    the parameters, in the loss's dtype and on its device.

    The graph of one batch is kept from product to product; that of a streamed loss is made anew for each part.
    """

    def __init__(self, loss: Loss, matrix: Matrix) -> None:
        self._loss = loss
        self.device, self.dtype = loss.device, loss.dtype
        self.n = sum(w.numel() for w in loss.weights.values())
        product_of = cache(_maps[matrix]) if isinstance(loss, BatchLoss | ShardedLoss) else _maps[matrix]

        @additive
        def product(part: BatchLoss, v: Vector) -> Tensor:
            return flatten(product_of(part)(v))

        self._product = product

    def __call__(self, v: Tensor) -> Tensor:
        return self._product(self._loss, unflatten(v, self._loss.weights))
