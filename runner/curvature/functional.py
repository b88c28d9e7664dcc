"""A network with other tensors in the place of its parameters and buffers, which leaves nothing behind."""

import copy
import operator
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrize

_OF_TORCH = frozenset(vars(nn.Module()))


class NotAFunction(ValueError):
    """The loss of a batch is not a function of the weights, so that it has no derivatives. `key`: whose doing it is,
    the network's ("arch") or the loss function's ("loss")."""

    def __init__(self, key: Literal["arch", "loss"], words: str) -> None:
        super().__init__(words)
        self.key = key


def call(module: nn.Module, tensors: Mapping[str, Any], arguments: tuple[Any, ...]) -> Any:
    """module(*arguments) with `tensors`, which have the names of `named_parameters` and `named_buffers`, wherever the
    module holds what has such a name.

    What is held twice is found here: where one module stands under two names, torch puts each tensor into its place
    twice, and does not find back.
    """
    names = {id(tensor): name for name, tensor in (*module.named_parameters(), *module.named_buffers())}
    own = {}
    for path, part in module.named_modules():
        for key, tensor in (*part._parameters.items(), *part._buffers.items()):
            place = f"{path}.{key}" if path else key
            name = names.get(id(tensor), place)
            if tensor is not None and name in tensors:
                own[place] = tensors[name]
    return functional_call(module, own, arguments, tie_weights=False)


@contextmanager
def with_buffers(module: nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside, the module's buffers are these, by name; afterwards they are what they were."""
    names = {id(buffer): name for name, buffer in module.named_buffers()}
    held = [(part, dict(part._buffers)) for part in module.modules()]
    for part, own in held:
        part._buffers.update({k: values.get(names[id(b)], b) for k, b in own.items() if b is not None})
    try:
        yield
    finally:
        for part, own in held:
            part._buffers.clear()
            part._buffers.update(own)


@contextmanager
def put_back(modules: Sequence[nn.Module]) -> Iterator[None]:
    """What a forward pass leaves in its modules is taken away again: what it sets as an attribute or puts into a list,
    dict, set or deque that is one, and the tensors that hooks make of parameters (torch.nn.utils.prune, the old
    weight_norm). What torch.nn.utils.parametrize caches is that of other weights, and not used."""
    before = [(vars(module), dict(vars(module))) for module in modules]
    own = (value for _, held in before for name, value in held.items() if name not in _OF_TORCH)
    containers = [(value, copy.copy(value)) for value in own if isinstance(value, list | dict | set | deque)]
    cached, parametrize._cache_enabled = parametrize._cache_enabled, 0
    try:
        yield
    finally:
        parametrize._cache_enabled = cached
        for now, held in before:
            if len(now) != len(held) or not all(map(operator.is_, now.values(), held.values())):
                now.clear()
                now.update(held)
        for container, content in containers:
            container.clear()
            container.extend(content) if isinstance(container, list | deque) else container.update(content)


EMBEDDINGS = {
    "max_norm": (None, "it writes to the weights in a forward pass"),
    "scale_grad_by_freq": (False, "its gradient is that of no function"),
    "sparse": (False, "its gradient is a sparse tensor, and products are dense"),
}


def check_embeddings(model: nn.Module) -> None:
    """Raises NotAFunction for embeddings that write to their weights, or whose gradient is another's, or sparse."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):
            for key, (wanted, why) in EMBEDDINGS.items():
                if (found := getattr(module, key)) != wanted:
                    raise NotAFunction(
                        "arch", f"{name or type(module).__name__} should have {key}={wanted}, found {found}: {why}"
                    )


@contextmanager
def refuse_recomputation() -> Iterator[None]:
    """Raise NotAFunction where the network asks for activations to be computed again in the backward pass, which comes
    when its own tensors are in their places again."""
    hook = getattr(sys.modules.get("torch.utils.checkpoint"), "_checkpoint_hook", None)
    if hook is None:
        yield
        return
    original = hook.__init__

    def refuse(*_: Any, **__: Any) -> None:
        raise NotAFunction(
            "arch", "the network should be measured without torch.utils.checkpoint, found a part that recomputes"
        )

    hook.__init__ = refuse
    try:
        yield
    finally:
        hook.__init__ = original
