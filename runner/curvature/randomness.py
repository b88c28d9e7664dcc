"""Random draws that can be made again: the dropout mask of a training step, at every point where its loss is taken."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from runner.curvature.functional import NotAFunction

Draws = tuple[torch.Tensor, torch.Tensor | None]


def capture(device: torch.device) -> Draws:
    """The state of the global generators that a network on `device` draws from."""
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def seed(value: int, device: torch.device) -> None:
    """Start the generators that a network on `device` draws from. torch.manual_seed would also queue a seed for devices
    that are not in use, with a traceback each time: 0.8 ms a step, and memory that is never freed."""
    torch.default_generator.manual_seed(value)
    if device.type == "cuda":
        torch.cuda.manual_seed(value)


def restore(draws: Draws, device: torch.device) -> None:
    torch.set_rng_state(draws[0])
    if draws[1] is not None:
        torch.cuda.set_rng_state(draws[1], device)


def moved(draws: Draws, device: torch.device) -> bool:
    """Whether something was drawn since `draws` was captured."""
    now = capture(device)
    return any(a is not None and b is not None and not torch.equal(a, b) for a, b in zip(draws, now, strict=True))


@contextmanager
def preserved(device: torch.device) -> Iterator[None]:
    """Whatever is drawn inside leaves no trace outside, also after an exception."""
    before = capture(device)
    try:
        yield
    finally:
        restore(before, device)


@contextmanager
def replayed(draws: Draws, device: torch.device) -> Iterator[None]:
    """Inside, the generators stand where `draws` was captured; outside, nothing has changed."""
    with preserved(device):
        restore(draws, device)
        yield


@contextmanager
def only_of_torch() -> Iterator[None]:
    """Raise NotAFunction where something inside draws from the generators of Python or NumPy, which are not set to
    where they were for every evaluation: that takes longer than a small network. They stay as they are."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        now = np.random.get_state()
        found = random.getstate() != python or not all(map(np.array_equal, now, numpy))
        if found:
            random.setstate(python)
            np.random.set_state(numpy)
    if found:
        raise NotAFunction(
            "arch",
            "the network and its loss should draw random numbers by torch's global generators, found draws from those "
            "of Python or NumPy",
        )
