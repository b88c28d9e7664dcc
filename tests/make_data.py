"""Tiny data sets in the layouts in which the real ones are published, for tests without the real files.

Their checksums are not the published ones: read them with `dataset.verify=false`.
"""

import gzip
import pickle
import struct
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image


def make_mnist(root: Path, train: int = 60, test: int = 20) -> Path:
    """The four IDX files below `root`/MNIST/raw; returns that folder."""
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    for name, size in (("train", train), ("t10k", test)):
        images, labels = _images((size, 28, 28)), _labels(size, 10)
        write_idx(folder / f"{name}-images-idx3-ubyte.gz", images)
        write_idx(folder / f"{name}-labels-idx1-ubyte.gz", labels)
    return folder


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wb") as file:
        file.write(header + array.astype(np.uint8).tobytes())


def make_cifar10(root: Path, train: int = 100, test: int = 20) -> Path:
    """Five training batches and a test batch in `root`/cifar-10-batches-py; returns that folder."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True, exist_ok=True)
    for name in (f"data_batch_{i}" for i in range(1, 6)):
        write_python2_pickle(folder / name, cifar_content(train // 5, labels=_labels(train // 5, 10)))
    write_python2_pickle(folder / "test_batch", cifar_content(test, labels=_labels(test, 10)))
    return folder


def make_cifar100(root: Path, train: int = 300, test: int = 100) -> Path:
    """The files train and test in `root`/cifar-100-python; returns that folder."""
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True, exist_ok=True)
    for name, size in (("train", train), ("test", test)):
        labels = {"fine_labels": _labels(size, 100), "coarse_labels": _labels(size, 20)}
        write_python2_pickle(folder / name, cifar_content(size, **labels))
    return folder


def cifar_content(size: int, **labels: np.ndarray) -> dict[bytes, Any]:
    lists = {key.encode(): values.tolist() for key, values in labels.items()}
    return {b"batch_label": b"tiny", b"data": _images((size, 3072)), **lists}


def make_tiny_imagenet(root: Path, classes: int = 10, train: int = 12, test: int = 40) -> Path:
    """`train` images of each class and `test` validation images, every third grey, in
    `root`/tiny-imagenet-200; returns that folder."""
    folder = root / "tiny-imagenet-200"
    # published wnids are in no order, and images are numbered without leading zeros
    wnids = [f"n{(7 * label + 3) % classes:08d}" for label in range(classes)]
    for wnid in wnids:
        (folder / "train" / wnid / "images").mkdir(parents=True, exist_ok=True)
        for number in range(train):
            write_jpeg(folder / "train" / wnid / "images" / f"{wnid}_{number}.JPEG", grey=number % 3 == 0)
    (folder / "val" / "images").mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(test):
        write_jpeg(folder / "val" / "images" / f"val_{number}.JPEG", grey=number % 3 == 0)
        lines.append(f"val_{number}.JPEG\t{wnids[number % classes]}\t0\t0\t63\t63\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    (folder / "wnids.txt").write_text("".join(f"{wnid}\n" for wnid in wnids))
    return folder


def write_jpeg(path: Path, grey: bool = False, side: int = 64) -> None:
    """A smooth random image: JPEG keeps it nearly as it was."""
    rng = np.random.default_rng(list(path.name.encode()))
    coarse = Image.fromarray(rng.integers(0, 256, (3, 3) if grey else (3, 3, 3), dtype=np.uint8))
    coarse.resize((side, side), Image.Resampling.BILINEAR).save(path, "JPEG", quality=95)


def write_python2_pickle(path: Path, content: object) -> None:
    with open(path, "wb") as file:
        _Python2Pickler(file, protocol=2).dump(content)
    path.write_bytes(path.read_bytes().replace(b"cnumpy._core.", b"cnumpy.core."))


class _Python2Pickler(pickle._Pickler):  # type: ignore[name-defined, misc]
    """Writes bytes as the strings of Python 2, as the published files have them."""

    def _save_bytes(self, data: bytes) -> None:
        short = len(data) < 256
        self.write(pickle.SHORT_BINSTRING + bytes([len(data)]) if short else pickle.BINSTRING)
        self.write(data if short else struct.pack("<i", len(data)) + data)
        self.memoize(data)

    dispatch: ClassVar[dict[type, Any]] = {**pickle._Pickler.dispatch, bytes: _save_bytes}  # type: ignore[attr-defined]


def _images(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(shape).integers(0, 256, shape, dtype=np.uint8)


def _labels(size: int, classes: int) -> np.ndarray:
    return np.random.default_rng([size, classes]).permutation(np.arange(size) % classes)
