"""Vectors in weight space: a dict of parameter name to tensor, one entry for each trainable parameter.

With `stacked` every entry has the vectors of several networks, (R, *shape), and every number is one for each, (R,).
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

Vector = dict[str, Tensor]
Direction = Mapping[str, Tensor] | Sequence[Tensor]


def dot(u: Vector, v: Vector, stacked: bool = False) -> Tensor:
    """u'v as a 0-d tensor."""
    if stacked:
        return torch.stack([(u[name] * v[name]).reshape(len(u[name]), -1).sum(1) for name in u]).sum(0)
    return torch.stack([torch.dot(u[name].flatten(), v[name].flatten()) for name in u]).sum()


def norm(v: Vector, stacked: bool = False) -> Tensor:
    """sqrt(v'v) as a 0-d tensor."""
    if stacked:
        entries = torch.stack([torch.linalg.vector_norm(entry.reshape(len(entry), -1), dim=1) for entry in v.values()])
        return torch.linalg.vector_norm(entries, dim=0)
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(v.values()))))


def cosine(u: Vector, v: Vector, stacked: bool = False) -> Tensor:
    """u'v / (|u| |v|) as a 0-d tensor; nan where one of them is zero."""
    return dot(u, v, stacked) / (norm(u, stacked) * norm(v, stacked))


def flatten(v: Vector, stacked: bool = False) -> Tensor:
    """The entries one after the other, (n,)."""
    return torch.cat([entry.reshape(len(entry), -1) if stacked else entry.flatten() for entry in v.values()], -1)


def unflatten(v: Tensor, like: Vector, stacked: bool = False) -> Vector:
    """The inverse of `flatten`, with the names and shapes of `like`."""
    parts = v.split([entry[0].numel() if stacked else entry.numel() for entry in like.values()], -1)
    return {name: part.reshape(like[name].shape) for name, part in zip(like, parts, strict=True)}


def combine(w: Vector, a: float, v: Vector) -> Vector:
    """w + a v"""
    return {name: torch.add(w[name], v[name], alpha=a) for name in w}


def as_vector(direction: Direction, like: Vector) -> Vector:
    """`direction` with the names, shapes, dtype and device of `like`; refuses what does not match it."""
    if not isinstance(direction, Iterable) or isinstance(direction, Tensor):
        raise ValueError(f"direction should be a dict or a sequence of tensors, found {type(direction).__name__}")
    if not isinstance(direction, Mapping):
        entries = list(direction)
        if len(entries) != len(like):
            raise ValueError(
                f"direction should have one tensor for each of {len(like)} parameters, found {len(entries)}"
            )
        direction = dict(zip(like, entries, strict=True))
    if direction.keys() != like.keys():
        missing, odd = sorted(set(like) - set(direction)), sorted(set(direction) - set(like))
        raise ValueError(
            f"direction should name the trainable parameters, each once; missing: {missing}, unknown: {odd}"
        )
    for name, tensor in direction.items():
        if not isinstance(tensor, Tensor):
            raise ValueError(f"direction[{name!r}] should be a tensor, found {type(tensor).__name__}")
        if tensor.is_complex() or tensor.layout != torch.strided:
            raise ValueError(
                f"direction[{name!r}] should be a dense tensor of real numbers, found one in {tensor.dtype} and "
                f"{tensor.layout}"
            )
        if tensor.shape != like[name].shape:
            raise ValueError(
                f"direction[{name!r}] should have shape {tuple(like[name].shape)}, found {tuple(tensor.shape)}"
            )
    return {name: direction[name].detach().to(like[name]) for name in like}
