"""Real subsets where RUNNER_DATA_ROOT names them, tiny files in the same layouts otherwise."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from make_data import make_cifar10, make_cifar100, make_mnist, make_tiny_imagenet


@pytest.fixture(scope="session")
def real_root() -> Path | None:
    return Path(os.environ["RUNNER_DATA_ROOT"]) if os.environ.get("RUNNER_DATA_ROOT") else None


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests leave the user's cache folder alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("user_cache")))
        yield


@pytest.fixture(autouse=True)
def _global_generators_are_left_alone() -> Iterator[None]:
    """No code of the data sets draws from, or seeds, the generators that training and users rely on."""
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1]  # type: ignore[index]
    yield
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # type: ignore[index, arg-type]


def _root(real: Path | None, folder: str, make: Callable[[Path], Path], made: Path) -> Path:
    if real is not None and (real / folder).exists():
        return real
    make(made)
    return made


@pytest.fixture(scope="session")
def mnist_root(real_root: Path | None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _root(real_root, "MNIST/raw", make_mnist, tmp_path_factory.mktemp("mnist"))


@pytest.fixture(scope="session")
def cifar10_root(real_root: Path | None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _root(real_root, "cifar-10-batches-py", make_cifar10, tmp_path_factory.mktemp("cifar10"))


@pytest.fixture(scope="session")
def cifar100_root(real_root: Path | None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _root(real_root, "cifar-100-python", make_cifar100, tmp_path_factory.mktemp("cifar100"))


@pytest.fixture(scope="session")
def tiny_imagenet_root(real_root: Path | None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _root(real_root, "tiny-imagenet-200", make_tiny_imagenet, tmp_path_factory.mktemp("tiny"))
