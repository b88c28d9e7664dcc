"""Runs made once: a whole one, and one that a test may do with as it likes."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from fork_server import ForkServer
from surviving import LONG, run_in


@pytest.fixture(scope="session")
def server() -> Iterator[ForkServer]:
    server = ForkServer()
    yield server
    server.close()


@contextmanager
def one_thread() -> Iterator[None]:
    """As the runs of the fork server have, before any test has said so: the bytes depend on it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine steps of LONG."""
    with one_thread():
        return run_in(tmp_path_factory.mktemp("undisturbed") / "run", *LONG, "steps=9")


@pytest.fixture(scope="session")
def _eight_steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with one_thread():
        return run_in(tmp_path_factory.mktemp("eight") / "run", *LONG, "steps=8")


@pytest.fixture
def folder(_eight_steps: Path, tmp_path: Path) -> Path:
    """Eight steps of LONG, for the test to do with as it likes."""
    return Path(shutil.copytree(_eight_steps, tmp_path / "run"))
