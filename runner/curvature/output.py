"""Derivatives of the network's scalar output f(w; x_i), sample by sample: no loss and no label is in them."""

from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap
from torch.utils._pytree import tree_map

from runner.curvature import functional, randomness
from runner.curvature.batch_loss import BatchLoss, gradient
from runner.curvature.precision import exact_arithmetic
from runner.curvature.taylor import expand
from runner.curvature.vectors import Vector, dot, flatten

# Numbers in the gradients that are held at once. On a CPU more do not fit its caches and gain nothing: 32 samples at a
# time take 1.5 times as long as 4 on a network of 1.1 million weights, and a tenth on one of 18,000.
HELD_ON_CPU, HELD_ELSEWHERE = 2**22, 2**27


@dataclass(frozen=True)
class OwnCurvature:
    """f_i, |grad f_i| and u'(d2 f_i)u with u = grad f_i / |grad f_i|, each (m,) for m samples.

    u is zero where the gradient is. Kept apart in this way, because s and Q underflow long before a ratio of them does.
    """

    f: Tensor
    grad_f: Tensor
    along: Tensor

    @property
    def s(self) -> Tensor:
        """|grad f_i|^2, (m,)."""
        return self.grad_f.square()

    @property
    def Q(self) -> Tensor:
        """grad f_i' (d2 f_i) grad f_i, (m,)."""
        return self.s * self.along


@torch.no_grad()
def own_curvature(loss: BatchLoss, sample: int, output: int = 0) -> OwnCurvature:
    """Of the batch's first `sample` samples, each as a batch of its own; f is number `output` of what a sample gives.

    A backward pass for each gradient and a sweep along it for d2 f, for many samples at once. The network must treat
    each sample alone. At a kink of the network d2 f is that of either side: a ReLU's own second derivative is 0.
    """
    buffers = loss.buffers()

    def one(x: Any) -> tuple[Tensor, Tensor, Tensor]:
        alone = tree_map(lambda leaf: leaf[None], x)

        def f(weights: Vector) -> Tensor:
            return chosen(functional.call(loss.model, {**weights, **loss.frozen, **buffers}, (alone,)), output)

        v, value = grad_and_value(f)(loss.weights)
        length = torch.linalg.vector_norm(flatten(v), dtype=torch.float64)
        u = {name: (entry / torch.where(length > 0, length, 1.0)).to(entry) for name, entry in v.items()}
        f2 = expand(loss.model, {**loss.weights, **loss.frozen}, u, buffers, alone)[2]
        return value, length.to(value), chosen(f2, output)

    held = HELD_ON_CPU if loss.device.type == "cpu" else HELD_ELSEWHERE
    at_once = max(1, held // sum(w.numel() for w in loss.weights.values()))
    with exact_arithmetic(loss.device), randomness.replayed(loss.draws, loss.device):
        return OwnCurvature(*vmap(one, chunk_size=at_once)(_samples(loss, 0, sample)))


def cross_terms(loss: BatchLoss, sample: int, output: int = 0) -> Tensor:
    """T[i, j, k] = grad f_i' (d2 f_j) grad f_k over the batch's first `sample` samples, (m, m, m).

    By double backward, m^2 Hessian-vector products of a batch of one; T[i, i, i] = Q_i, and T is symmetric in i and k.
    """
    graphs = []
    with exact_arithmetic(loss.device), torch.enable_grad():
        for i in range(min(sample, loss.samples)):
            alone, leaves = copy(loss), loss.leaves()
            alone.inputs = _samples(loss, i, i + 1)
            f = chosen(alone.outputs(leaves), output)
            graphs.append((leaves, gradient(f, leaves, create_graph=True)))
        directions = [{name: entry.detach() for name, entry in g.items()} for _, g in graphs]
        gradients = torch.stack([flatten(v) for v in directions])
        rows = []
        for leaves, g in graphs:
            products = [gradient(dot(g, v), leaves, retain_graph=True) for v in directions]  # (d2 f_j) grad f_k
            rows.append(torch.stack([gradients @ flatten(product) for product in products], dim=1))
    return torch.stack(rows, dim=1)


def chosen(outputs: Any, output: int) -> Tensor:
    """Number `output` of the outputs of a batch of one, a 0-d tensor."""
    if not isinstance(outputs, Tensor):
        raise ValueError(f"the network should return one tensor, found {type(outputs).__name__}")
    return outputs.flatten()[output]


def _samples(loss: BatchLoss, start: int, stop: int) -> Any:
    return tree_map(lambda leaf: leaf[start:stop], loss.inputs)
