"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009): 50,000 + 10,000 colour photographs, 32 x 32."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from runner.dataset.base import Dataset, Split
from runner.dataset.download import Published, provide
from runner.dataset.files import check_md5
from runner.dataset.images import image_dataset, labelled
from runner.dataset.unpack import unpack
from runner.dataset.unpickle import load
from runner.errors import BadInput

SHAPE = (3, 32, 32)
PIXELS = math.prod(SHAPE)


@dataclass(frozen=True)
class _Layout:
    """How one of the two is published: pickles in a folder, from an archive, labels under a key of theirs."""

    folder: str
    archive: Published
    train: Mapping[str, str]  # file name: md5
    test: Mapping[str, str]
    labels: str
    classes: int


_CIFAR10 = _Layout(
    folder="cifar-10-batches-py",
    archive=Published(
        "cifar-10-python.tar.gz",
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        "c58f30108f718f92721af3b95e74349a",
    ),
    train={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    },
    test={"test_batch": "40351d587109b95175f43aff81a1287e"},
    labels="labels",
    classes=10,
)
_CIFAR100 = _Layout(
    folder="cifar-100-python",
    archive=Published(
        "cifar-100-python.tar.gz",
        "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        "eb9058c3a382ffc7106e4002c42a8d85",
    ),
    train={"train": "16019d7e3df5f24257cddd939b257f8d"},
    test={"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
    labels="fine_labels",
    classes=100,
)


def cifar10(
    *,
    root: str,
    train_size: int | None = None,
    test_size: int | None = None,
    augment: bool = True,
    verify: bool = True,
    download: bool = True,
    seed: int = 0,
) -> Dataset:
    """CIFAR-10 from `root`/cifar-10-batches-py; images (N, 3, 32, 32), 10 classes.

    `train_size`, `test_size`: class-balanced subsets drawn with `seed`; None: all. `augment`: random crops
    and flips in training. `verify`: the files must have the published checksums. `download`: a missing
    archive is fetched. Raises BadInput where that fails, and for damaged files.
    """
    splits = _read(_CIFAR10, Path(root), verify, download)
    return image_dataset(*splits, classes=10, train_size=train_size, test_size=test_size, seed=seed, augment=augment)


def cifar100(
    *,
    root: str,
    train_size: int | None = None,
    test_size: int | None = None,
    augment: bool = True,
    verify: bool = True,
    download: bool = True,
    seed: int = 0,
) -> Dataset:
    """CIFAR-100 from `root`/cifar-100-python; images (N, 3, 32, 32), 100 classes ("fine" labels).

    The arguments are those of `cifar10`.
    """
    splits = _read(_CIFAR100, Path(root), verify, download)
    return image_dataset(*splits, classes=100, train_size=train_size, test_size=test_size, seed=seed, augment=augment)


def _read(layout: _Layout, root: Path, verify: bool, download: bool) -> tuple[Split, Split]:
    folder = root / layout.folder
    if not folder.exists():
        provide([layout.archive], root, download=download)
        archive = root / layout.archive.path
        if verify:
            check_md5(archive, layout.archive.md5)
        unpack(archive, folder)
    return _split(folder, layout, layout.train, verify), _split(folder, layout, layout.test, verify)


def _split(folder: Path, layout: _Layout, files: Mapping[str, str], verify: bool) -> Split:
    parts = [_file(folder / name, md5 if verify else None, layout) for name, md5 in files.items()]
    return Split(torch.cat([part.inputs for part in parts]), torch.cat([part.labels for part in parts]))


def _file(path: Path, md5: str | None, layout: _Layout) -> Split:
    if not path.exists():
        raise BadInput(f"{path} is missing: remove {path.parent}, so that it is unpacked or fetched again.")
    if md5 is not None:
        check_md5(path, md5, remove=path.parent)
    content = load(path)
    images, labels = content.get("data"), content.get(layout.labels)
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape[1:] != (PIXELS,):
        raise BadInput(f"{path} should hold images under the key data: an array (N, {PIXELS}), uint8.")
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise BadInput(f"{path} should hold labels under the key {layout.labels}: a list of integers.")
    return labelled(torch.tensor(images).view(-1, *SHAPE), torch.tensor(labels), layout.classes, path)
