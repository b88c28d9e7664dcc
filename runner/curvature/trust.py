"""Is what autograd gives as the second derivative one? A backward pass that takes something for a constant that moves
makes it wrong without a word: some of torch's do, and functions of a user's own."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction, Function
from torch.utils._pytree import tree_leaves

from runner.curvature import randomness
from runner.curvature.batch_loss import BatchLoss, gradient
from runner.curvature.exact import hessian_map, split_by_double_backward
from runner.curvature.twice import TwiceDifferentiable
from runner.curvature.vectors import Vector, combine, dot, norm

STEPS = (1e-7, 1e-8, 1e-9, 1e-10)  # of |x|


def asymmetry(loss: BatchLoss) -> float:
    """|u'Hv - v'Hu| / (|u| |Hv| + |v| |Hu|) for two random directions: 0 to rounding, since H is symmetric."""
    generator = torch.Generator().manual_seed(0)
    product, u, v = hessian_map(loss), _random(loss.weights, generator), _random(loss.weights, generator)
    hu, hv = product(u), product(v)
    size = norm(u) * norm(hv) + norm(v) * norm(hu)
    return float((dot(u, hv) - dot(v, hu)).abs() / size) if size > 0 else 0.0


def imbalance(loss: BatchLoss) -> float:
    """|u'Hu - u'Gu - u'H_r u| / (|u'Hu| + |u'Gu| + |u'H_r u|) for a random direction: 0 to rounding."""
    u = _random(loss.weights, torch.Generator().manual_seed(0))
    found = split_by_double_backward(loss, u)
    size = found.gHg.abs() + found.gGg.abs() + found.gHrg.abs()
    return float((found.gHg - found.gGg - found.gHrg).abs() / size) if size > 0 else 0.0


def misfits(loss: BatchLoss) -> dict[str, float]:
    """The misfit of each torch.autograd.Function, whose backward pass Python code says, between weights and loss, by
    name; at what it is first given. Those that do not run by themselves in fp64 are left out."""
    functions = _functions(loss)
    with _first_arguments(functions) as given, torch.no_grad():
        loss(loss.weights)
    found = dict[str, float]()
    for function in functions:
        with suppress(Exception):
            found[function.__name__] = misfit(function, given[function])
    return found


def misfit(function: type[Function], arguments: Sequence[Any]) -> float:
    """How far the second derivative S u of c'f(x) is from what it should be, (s(x + h u) - s(x - h u)) / 2h with s its
    slope, for random c and u with |u| = |x|, as a share of |S u| + |s| / 1000. In fp64 below 1e-5: the smallest for
    several h, since a kink between the two points adds to a difference what a derivative does not have. `arguments` are
    those of its forward pass, without the context; x is a little beside the floating-point tensors among them, of any
    shapes, many of which may lie on kinks, as zeros do. 0.0 where there is neither slope nor second derivative."""
    generator = torch.Generator("cpu").manual_seed(0)
    given = {str(k): x for k, x in enumerate(arguments) if isinstance(x, Tensor) and x.is_floating_point()}
    x = combine(given, 1e-3, _random(given, generator, float(norm(given))))
    u = _random(given, generator, float(norm(given)))
    device = next(iter(x.values())).device
    draws = randomness.capture(device)

    def slope(at: Vector, along: Vector | None = None) -> tuple[Vector, Vector]:
        """s at this x, and its derivative along a vector."""
        leaves = {name: one.detach().requires_grad_() for name, one in at.items()}
        own = [leaves[str(k)].clone() if str(k) in leaves else one for k, one in enumerate(arguments)]
        with torch.enable_grad(), randomness.replayed(draws, device), TwiceDifferentiable():
            found = tree_leaves(function.apply(*own))
            outputs = {str(k): y for k, y in enumerate(found) if isinstance(y, Tensor) and y.requires_grad}
            c = _random(outputs, torch.Generator("cpu").manual_seed(1))
            s = gradient(dot(c, outputs), leaves, create_graph=along is not None)
            curved = {} if along is None else gradient(dot(s, along), leaves)
        return {name: one.detach() for name, one in s.items()}, curved

    s, curved = slope(x, u)
    scale = norm(curved) + norm(s) / 1000

    def distance(h: float) -> float:
        (ahead, _), (behind, _) = slope(combine(x, h, u)), slope(combine(x, -h, u))
        found = {name: (ahead[name] - behind[name]) / (2 * h) for name in ahead}
        return float(norm(combine(found, -1.0, curved)) / scale)

    return min(map(distance, STEPS)) if scale > 0 else 0.0


def _functions(loss: BatchLoss) -> list[type[Function]]:
    with torch.enable_grad():
        waiting = [loss(loss.leaves()).sum().grad_fn]
    seen, found = set(waiting), dict[type[Function], None]()
    while waiting:
        node = waiting.pop()
        if isinstance(node, BackwardCFunction):
            found[type(node)._forward_cls] = None  # type: ignore[attr-defined]
        fresh = {above for above, _ in node.next_functions} - seen if node is not None else set()
        seen |= fresh
        waiting += fresh
    return list(found)


@contextmanager
def _first_arguments(functions: Sequence[type[Function]]) -> Iterator[dict[type[Function], list[Any]]]:
    """Inside, what each of the functions is given first is kept. Their `forward` is replaced, and not `apply`, of which
    modules may hold a reference."""
    given: dict[type[Function], list[Any]] = {}
    own = {function: vars(function).get("forward") for function in functions}
    for function in functions:
        function.forward = staticmethod(_keeping(function, given))  # type: ignore[method-assign, assignment]
    try:
        yield given
    finally:
        for function, forward in own.items():
            if forward is None:
                del function.forward
            else:
                function.forward = forward  # type: ignore[method-assign]


def _keeping(function: type[Function], given: dict[type[Function], list[Any]]) -> Any:
    forward, with_context = function.forward, function.setup_context is Function.setup_context

    def kept(*arguments: Any, **named: Any) -> Any:
        own = arguments[1:] if with_context else arguments
        given.setdefault(function, [x.detach().clone() if isinstance(x, Tensor) else x for x in own])
        return forward(*arguments, **named)

    return kept


def _random(like: Vector, generator: torch.Generator, length: float | None = None) -> Vector:
    """Normal entries, the same on every device, together of this length if one is given."""
    v = {n: torch.randn(w.shape, generator=generator, device="cpu").to(w) for n, w in like.items()}
    return v if length is None else {n: entry * (length / norm(v)) for n, entry in v.items()}
