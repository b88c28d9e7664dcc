"""Is what autograd gives as the second derivative one? A backward pass that takes something for a constant that moves
makes it wrong without a word: some of torch's do, and functions of a user's own."""

import torch
from torch.autograd.function import BackwardCFunction

from runner.curvature.batch_loss import BatchLoss
from runner.curvature.exact import hessian_map, split_by_double_backward
from runner.curvature.vectors import Vector, combine, dot, norm

STEPS = (1e-9, 1e-10, 1e-11)  # of |w|


def asymmetry(loss: BatchLoss) -> float:
    """|u'Hv - v'Hu| / (|u| |Hv| + |v| |Hu|) for two random directions: 0 to rounding, since H is symmetric."""
    generator = torch.Generator().manual_seed(0)
    product, u, v = hessian_map(loss), _random(loss, generator), _random(loss, generator)
    hu, hv = product(u), product(v)
    size = norm(u) * norm(hv) + norm(v) * norm(hu)
    return float((dot(u, hv) - dot(v, hu)).abs() / size) if size > 0 else 0.0


def imbalance(loss: BatchLoss) -> float:
    """|u'Hu - u'Gu - u'H_r u| / (|u'Hu| + |u'Gu| + |u'H_r u|) for a random direction: 0 to rounding."""
    u = _random(loss, torch.Generator().manual_seed(0))
    found = split_by_double_backward(loss, u)
    size = found.gHg.abs() + found.gGg.abs() + found.gHrg.abs()
    return float((found.gHg - found.gGg - found.gHrg).abs() / size) if size > 0 else 0.0


def misfit(loss: BatchLoss) -> float:
    """How far H u is from what it should be, (g(w + h u) - g(w - h u)) / 2h, for a random direction of length |w|, as a
    share of |H u| + |g| / 1000. In fp64 below 1e-5: the smallest for several h, since a kink of the network between the
    two points adds to a difference what H does not have. w is beside the model's weights, at which many units may lie
    on their kinks at once, as those with zero biases over empty pixels do."""
    generator, size = torch.Generator().manual_seed(0), float(norm(loss.weights))
    w = combine(loss.weights, 1e-3, _random(loss, generator, size))
    u = _random(loss, generator, size)
    hu = hessian_map(loss, w)(u)
    scale = norm(hu) + norm(loss.gradient(w)) / 1000

    def distance(h: float) -> float:
        ahead, behind = loss.gradient(combine(w, h, u)), loss.gradient(combine(w, -h, u))
        found = {name: (ahead[name] - behind[name]) / (2 * h) for name in ahead}
        return float(norm(combine(found, -1.0, hu)) / scale)

    return min(map(distance, STEPS)) if scale > 0 else 0.0


def own_functions(loss: BatchLoss) -> list[str]:
    """The names of the torch.autograd.Functions, whose backward pass Python code says, between weights and loss."""
    with torch.enable_grad():
        waiting = [loss(loss.leaves()).sum().grad_fn]
    seen, found = set(waiting), set[str]()
    while waiting:
        node = waiting.pop()
        if isinstance(node, BackwardCFunction):
            found.add(type(node)._forward_cls.__name__)  # type: ignore[attr-defined]
        fresh = {above for above, _ in node.next_functions} - seen if node is not None else set()
        seen |= fresh
        waiting += fresh
    return sorted(found)


def _random(loss: BatchLoss, generator: torch.Generator, length: float | None = None) -> Vector:
    """Normal entries, the same on every device, together of this length if one is given."""
    v = {n: torch.randn(w.shape, generator=generator).to(w) for n, w in loss.weights.items()}
    return v if length is None else {n: entry * (length / norm(v)) for n, entry in v.items()}
