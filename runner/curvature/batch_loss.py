"""The loss of one batch as a function of the weights alone."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from runner.curvature import functional, randomness
from runner.curvature.functional import NotAFunction, put_back
from runner.curvature.precision import exact_arithmetic
from runner.curvature.side_by_side import side_by_side
from runner.curvature.taylor import expand, split_terms
from runner.curvature.twice import TwiceDifferentiable
from runner.curvature.vectors import Vector

LossFunction = Callable[[Any, Any], Tensor]
_PURE = "loss_fn should be a function of outputs and targets, found one that"


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """Floating-point tensors in `dtype`, as constants, also inside lists, tuples and dicts; all else as it is."""
    return tree_map(lambda t: t.detach().to(dtype) if isinstance(t, Tensor) and t.is_floating_point() else t, value)


def check_outputs(outputs: Any) -> Any:
    """The outputs of a network, if they are real tensors, and structures of them that torch can look into."""
    leaves = tree_leaves(outputs)
    if odd := [leaf for leaf in leaves if not isinstance(leaf, Tensor | bool | int | float | str | None)]:
        raise ValueError(
            "the network should return tensors, or lists, tuples and dicts of them, found an object of the class "
            f"{type(odd[0]).__name__} (unknown to torch.utils._pytree)"
        )
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    if odd := [leaf for leaf in tensors if leaf.is_complex()]:
        raise ValueError(f"the network should return real numbers, found a tensor in {odd[0].dtype}")
    if not any(leaf.is_floating_point() for leaf in tensors):
        raise ValueError("the network should return at least one tensor of floating-point numbers, found none")
    return outputs


class BatchLoss:
    """L_B(w) = loss_fn(f(w; inputs), targets) with everything but w held still.

    The model is used in the mode it is in. Each evaluation starts from the same buffers (running statistics are updated
    in a copy, which is thrown away) and makes the same random draws as the first one would have made when this object
    was built, and leaves the generators as it found them. So L_B is a function, and evaluating it changes nothing.

    `inputs` is the model's one argument. `loss_fn(outputs, targets)` returns the mean loss, a 0-d tensor.
    `dtype` is that of the measurement, by default the parameters' own.
    `rows`: the model's parameters and buffers are those of several networks side by side, stacked. An index measures
    one of them alone. A slice, or a list, measures R of them at once: every vector here is then stacked, (R, *shape),
    outputs are (R, …) and losses (R,). They see the same batch, or, with `own_data`, each its own: inputs and targets
    (R, …).
    `share`: a factor of the loss and of all that is linear in it, for a batch that is a part of a larger one.
    `buffers`: those from which each evaluation starts, by default the model's as they are.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFunction,
        inputs: Any,
        targets: Any,
        dtype: torch.dtype | None = None,
        *,
        rows: slice | list[int] | int | None = None,
        own_data: bool = False,
        share: float = 1.0,
        buffers: Vector | None = None,
    ) -> None:
        parameters = dict(model.named_parameters())
        if not any(p.requires_grad for p in parameters.values()):
            raise ValueError("model should have at least one parameter with requires_grad, found none")
        if odd := [name for name, p in parameters.items() if p.is_complex()]:
            raise ValueError(f"model should have real parameters, found {odd[0]} in {parameters[odd[0]].dtype}")
        functional.check_embeddings(model)
        first = next(p for p in parameters.values() if p.requires_grad)
        self.model, self.device, self.dtype = model, first.device, dtype or first.dtype
        self.stacked, self._rows = isinstance(rows, slice | list), rows
        self.weights: Vector = {n: self._own(p) for n, p in parameters.items() if p.requires_grad}
        self.frozen: Vector = {n: self._own(p) for n, p in parameters.items() if not p.requires_grad}
        self.inputs, self.targets = _cast(inputs, self.dtype), _cast(targets, self.dtype)
        self._data = 0 if own_data else None
        self.draws = randomness.capture(self.device)
        self._modules = list(model.modules())
        self._loss_fn, self.share, self._held, self._loss_is_checked = loss_fn, share, buffers, False

    def buffers(self) -> Vector:
        """A fresh copy of the model's buffers, floats in this loss's dtype."""
        held = dict(self.model.named_buffers()) if self._held is None else self._held
        return {name: self._own(buffer).clone() for name, buffer in held.items()}

    @property
    def samples_dim(self) -> int:
        """The dimension of the inputs along which the samples lie."""
        return 0 if self._data is None else 1

    @property
    def samples(self) -> int:
        """How many the batch has."""
        return int(tree_leaves(self.inputs)[0].shape[self.samples_dim])

    def chunks(self, size: int | None) -> Iterator[Any]:
        """The inputs in micro-batches of so many samples; None: as they are."""
        if size is None:
            yield self.inputs
            return
        for start in range(0, self.samples, size):
            here = (*[slice(None)] * self.samples_dim, slice(start, start + size))
            yield tree_map(lambda leaf, here=here: leaf[here], self.inputs)

    def _own(self, entry: Tensor) -> Tensor:
        """The measured networks' rows of a parameter or buffer."""
        return _cast(entry.detach() if self._rows is None else entry.detach()[self._rows], self.dtype)

    def outputs(self, weights: Vector, inputs: Any = None) -> Any:
        """F(w), differentiable in `weights`. `inputs`: others than the batch's, e.g. a part of them."""
        inputs = self.inputs if inputs is None else inputs

        def network(own: Vector, inputs: Any) -> Any:
            return functional.call(self.model, own, (inputs,))

        own = {**weights, **self.frozen}
        versions = {name: entry._version for name, entry in own.items()}
        with self._as_it_stands(), functional.refuse_recomputation(), TwiceDifferentiable():
            found = check_outputs(self.each(network, 0, self._data)({**own, **self.buffers()}, inputs))
        if written := [name for name, entry in own.items() if entry._version != versions[name]]:
            words = f"the network should not write to its parameters in a forward pass, found {written}"
            raise NotAFunction("arch", words)
        return found

    @contextmanager
    def _as_it_stands(self) -> Iterator[None]:
        """The generators stand where they stood at the beginning, and are put back, as is what the modules hold."""
        with exact_arithmetic(self.device), randomness.replayed(self.draws, self.device), put_back(self._modules):
            yield

    def draws_numbers(self) -> bool:
        """Whether the network draws random numbers."""
        with self._as_it_stands(), torch.no_grad():
            own = {**self.weights, **self.frozen, **self.buffers()}
            self.each(lambda own, inputs: functional.call(self.model, own, (inputs,)), 0, self._data)(own, self.inputs)
            return randomness.moved(self.draws, self.device)

    def each(self, function: Callable[..., Any], *dims: int | None) -> Callable[..., Any]:
        """`function` of one network, over all that are stacked: the arguments with 0 in `dims` are each network's own,
        those with None are the same for all."""
        return side_by_side(function, *dims) if self.stacked else function

    def expand(self, v: Vector, *, compiled: bool = False, inputs: Any = None) -> tuple[Any, Any, Any]:
        """f0, f1, f2 with F(w + t v) = f0 + t f1 + t^2/2 f2 + …, in one forward sweep without a graph. `inputs`: others
        than the batch's, e.g. a part of them."""
        inputs = self.inputs if inputs is None else inputs

        def sweep(weights: Vector, v: Vector, buffers: Vector, inputs: Any) -> tuple[Any, Any, Any]:
            return expand(self.model, weights, v, buffers, inputs, compiled=compiled)

        with self._as_it_stands():
            swept = self.each(sweep, 0, 0, 0, self._data)
            f0, f1, f2 = swept({**self.weights, **self.frozen}, v, self.buffers(), inputs)
            return check_outputs(f0), f1, f2

    def split_terms(self, f0: Any, f1: Any, f2: Any) -> tuple[Tensor, Tensor, Tensor]:
        """v'Hv, v'Gv and v'H_r v from the expansion of the outputs."""

        def terms(f0: Any, f1: Any, f2: Any, targets: Any) -> tuple[Tensor, Tensor, Tensor]:
            return split_terms(self._checked, f0, f1, f2, targets)

        with exact_arithmetic(self.device), self._without_draws():
            return self.each(terms, 0, 0, 0, self._data)(f0, f1, f2, self.targets)

    def of_outputs(self, outputs: Any, targets: Any = None) -> Tensor:
        """l(F): the mean loss of given outputs, a 0-d tensor."""
        targets = self.targets if targets is None else targets
        with exact_arithmetic(self.device), self._without_draws():
            return self.each(self._checked, 0, self._data)(outputs, targets)

    @contextmanager
    def _without_draws(self) -> Iterator[None]:
        """Refuse a loss function that draws random numbers, the first time that it is called."""
        if self._loss_is_checked:
            yield
            return
        before = randomness.capture(self.device)
        try:
            yield
        finally:
            if drawn := randomness.moved(before, self.device):
                randomness.restore(before, self.device)
        if drawn:
            raise NotAFunction("loss", f"{_PURE} draws random numbers")
        self._loss_is_checked = True

    def _checked(self, outputs: Any, targets: Any) -> Tensor:
        value = self._evaluate(outputs, targets)
        if not isinstance(value, Tensor) or value.dim() != 0:
            kind = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise ValueError(f"loss_fn should return the mean loss, a 0-d tensor, found {kind}")
        return value if self.share == 1 else self.share * value

    def _evaluate(self, outputs: Any, targets: Any) -> Tensor:
        if not isinstance(self._loss_fn, nn.Module):
            return self._loss_fn(outputs, targets)
        buffers = {name: buffer.clone() for name, buffer in self._loss_fn.named_buffers()}
        dtypes = [leaf.dtype for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
        own = _cast({**dict(self._loss_fn.named_parameters()), **buffers}, dtypes[0] if dtypes else self.dtype)
        versions = {name: own[name]._version for name in buffers}
        value: Tensor = functional.call(self._loss_fn, own, (outputs, targets))
        if any(own[name]._version != version for name, version in versions.items()):
            raise NotAFunction("loss", f"{_PURE} writes to its buffers")
        return value

    def __call__(self, weights: Vector) -> Tensor:
        return self.of_outputs(self.outputs(weights))

    def leaves(self, weights: Vector | None = None) -> Vector:
        """The model's weights, or the given ones, as leaves of a new graph."""
        return {name: w.detach().requires_grad_() for name, w in (weights or self.weights).items()}

    def gradient(self, weights: Vector | None = None) -> Vector:
        """grad L_B, at the model's weights or at the given ones."""
        leaves = self.leaves(weights)
        with exact_arithmetic(self.device), torch.enable_grad():
            return gradient(self(leaves).sum(), leaves)


def gradient(scalar: Tensor, leaves: Vector, create_graph: bool = False, retain_graph: bool | None = None) -> Vector:
    """d scalar / d leaves; zeros for leaves that `scalar` does not depend on."""
    if not scalar.requires_grad:  # e.g. the second derivative of a network that is linear in its weights
        return {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
    grads = torch.autograd.grad(
        scalar,
        list(leaves.values()),
        create_graph=create_graph,
        retain_graph=retain_graph,
        allow_unused=True,
        materialize_grads=True,
    )
    return dict(zip(leaves, grads, strict=True))
