"""Vectors in weight space: a dict of parameter name to tensor, one entry for each trainable parameter."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Vector = dict[str, Tensor]
Direction = Mapping[str, Tensor] | Sequence[Tensor]


def dot(u: Vector, v: Vector) -> Tensor:
    """u'v as a 0-d tensor."""
    return torch.stack([torch.dot(u[name].flatten(), v[name].flatten()) for name in u]).sum()


def norm(v: Vector) -> Tensor:
    """sqrt(v'v) as a 0-d tensor."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(v.values()))))


def cosine(u: Vector, v: Vector) -> Tensor:
    """u'v / (|u| |v|) as a 0-d tensor; nan where one of them is zero."""
    return dot(u, v) / (norm(u) * norm(v))


def combine(w: Vector, a: float, v: Vector) -> Vector:
    """w + a v"""
    return {name: torch.add(w[name], v[name], alpha=a) for name in w}


def as_vector(direction: Direction, like: Vector) -> Vector:
    """`direction` with the names, shapes, dtype and device of `like`; refuses what does not match it."""
    if not isinstance(direction, Mapping):
        entries = list(direction)
        if len(entries) != len(like):
            raise ValueError(
                f"direction should have one tensor for each of {len(like)} parameters, found {len(entries)}"
            )
        direction = dict(zip(like, entries, strict=True))
    if direction.keys() != like.keys():
        odd = sorted(set(direction) ^ set(like))
        raise ValueError(f"direction should name the trainable parameters, each once; missing or unknown: {odd}")
    for name, tensor in direction.items():
        if tensor.shape != like[name].shape:
            raise ValueError(
                f"direction[{name!r}] should have shape {tuple(like[name].shape)}, found {tuple(tensor.shape)}"
            )
    return {name: direction[name].detach().to(like[name]) for name in like}
