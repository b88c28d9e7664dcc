"""Shared by all tests: one thread, so that bytes repeat, and a global generator that no test depends on."""

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import torch

from runner import train


@pytest.fixture(autouse=True)
def _one_thread_one_seed() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def stopped_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], AbstractContextManager[None]]:
    """Inside `stopped_at(n)` a run is told to end while it makes its n-th update from there, counted from 0, and ends
    by KeyboardInterrupt after it."""

    @contextmanager
    def stopping(at: int) -> Iterator[None]:
        original, updates = train.update, 0

        def update(*arguments: Any) -> None:
            nonlocal updates
            if updates == at:
                signal.raise_signal(signal.SIGTERM)
            updates += 1
            original(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(train, "update", update)
            with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
                yield

    return stopping
