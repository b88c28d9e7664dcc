"""MNIST (LeCun, Cortes and Burges, 1998): 60,000 + 10,000 handwritten digits, 28 x 28, grey."""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from runner.dataset.base import Dataset, Split
from runner.dataset.download import Published, provide
from runner.dataset.files import check_md5
from runner.dataset.images import image_dataset, labelled
from runner.errors import BadInput

CLASSES = 10
SIDE = 28
_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_MD5 = {  # of the file as published, and of what it unpacks to
    "train-images-idx3-ubyte": ("f68b3c2dcbeaaa9fbdd348bbdeb94873", "6bbc9ace898e44ae57da46a324031adb"),
    "train-labels-idx1-ubyte": ("d53e105ee54ea40749a09fcbcd1e9432", "a25bea736e30d166cdddb491f175f624"),
    "t10k-images-idx3-ubyte": ("9fb629c4189551a2d022fa330f9573f3", "2646ac647ad5339dbf082846283269ea"),
    "t10k-labels-idx1-ubyte": ("ec29112dd5afa0611ce80d1b7f02629c", "27ae3e4e09519cfbb04c329615203637"),
}
_LIMIT = 2**30  # bytes that a file may hold; the largest published one holds 47 million


def mnist(
    *,
    root: str,
    train_size: int | None = None,
    test_size: int | None = None,
    verify: bool = True,
    download: bool = True,
    seed: int = 0,
) -> Dataset:
    """MNIST from the four IDX files below `root`/MNIST/raw, packed (.gz) or not; images (N, 1, 28, 28).

    `train_size`, `test_size`: class-balanced subsets drawn with `seed`; None: all. `verify`: the files must
    have the published checksums. `download`: missing files are fetched. Raises BadInput where that fails, and
    for damaged files.
    """
    folder = Path(root) / "MNIST" / "raw"
    missing = [stem for stem in _MD5 if not (folder / stem).exists()]
    provide([_published(stem) for stem in missing], Path(root), download=download)
    return image_dataset(
        _split(folder, "train", verify),
        _split(folder, "t10k", verify),
        classes=CLASSES,
        train_size=train_size,
        test_size=test_size,
        seed=seed,
    )


def _published(stem: str) -> Published:
    return Published(f"MNIST/raw/{stem}.gz", f"{_URL}{stem}.gz", _MD5[stem][0])


def _split(folder: Path, name: Literal["train", "t10k"], verify: bool) -> Split:
    images = _read(folder, f"{name}-images-idx3-ubyte", (SIDE, SIDE), verify)
    labels = _read(folder, f"{name}-labels-idx1-ubyte", (), verify)
    return labelled(images[:, None], labels.long(), CLASSES, folder / f"{name}-labels-idx1-ubyte")


def _read(folder: Path, stem: str, shape: tuple[int, ...], verify: bool) -> Tensor:
    packed = folder / f"{stem}.gz"
    path, md5 = (packed, _MD5[stem][0]) if packed.exists() else (folder / stem, _MD5[stem][1])
    if verify:
        check_md5(path, md5)
    return read_idx(path, shape)


def read_idx(path: Path, shape: tuple[int, ...]) -> Tensor:
    """The bytes of an IDX file as a uint8 tensor (N, *shape).

    The format: two zero bytes, 8 (for uint8), the number of dimensions; each dimension as a big-endian
    32-bit integer; the data. Raises BadInput unless the file is exactly that.
    """
    start = bytes([0, 0, 8, 1 + len(shape)])
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            header = file.read(len(start) + 4 * start[-1])
            if len(header) < len(start) + 4 * start[-1] or not header.startswith(start):
                raise ValueError(f"it begins with {header[:4].hex()} instead of {start.hex()} and the dimensions")
            dims = struct.unpack(f">{start[-1]}I", header[len(start) :])
            if dims[1:] != shape:
                raise ValueError(f"its samples have the shape {dims[1:]} instead of {shape}")
            size = math.prod(dims)
            data = file.read(min(size, _LIMIT) + 1)
            if len(data) != size:
                found = "more" if len(data) > size else str(len(data))
                raise ValueError(f"it announces {size} bytes of data and holds {found}")
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise BadInput(f"{path} is no intact IDX file: {error}. Remove it, so that it is fetched again.") from error
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).view(dims)
