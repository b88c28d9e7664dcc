"""Tiny ImageNet (Stanford CS231n): 200 classes with 500 training images each, 10,000 labelled validation
images, 64 x 64, some of them grey."""

from collections import Counter
from pathlib import Path

import torch
from torch import Tensor

from runner.dataset.base import Dataset, Split
from runner.dataset.cache import Tensors, cached
from runner.dataset.download import Published, provide
from runner.dataset.files import check_md5
from runner.dataset.images import count_levels, image_dataset
from runner.dataset.jpeg import decode
from runner.dataset.sources import Folder, Source, Zip
from runner.errors import BadInput

SIDE = 64
_FOLDER = "tiny-imagenet-200"
_ZIP = Published(f"{_FOLDER}.zip", f"http://cs231n.stanford.edu/{_FOLDER}.zip", "90528d7ca1a48142e341f4ef8d21d0de")
_ANNOTATIONS = "val/val_annotations.txt"
_PARTS = ("wnids.txt", _ANNOTATIONS, "train/*/images/*", "val/images/*")
_PUBLISHED_COUNTS = Counter({500: 200}), 10_000

Labelled = list[tuple[str, int]]  # file names and labels


def tiny_imagenet(
    *,
    root: str,
    train_size: int | None = None,
    test_size: int | None = None,
    augment: bool = True,
    verify: bool = True,
    download: bool = True,
    seed: int = 0,
) -> Dataset:
    """Tiny ImageNet from `root`/tiny-imagenet-200.zip or, without it, from the unpacked folder
    `root`/tiny-imagenet-200; images (N, 3, 64, 64), labels in the order of wnids.txt.

    The test set is the labelled validation set. The images are decoded once and cached.
    `train_size`, `test_size`: class-balanced subsets drawn with `seed`; None: all. `augment`: random crops
    and flips in training. `verify`: the zip must have the published checksum, a folder the published numbers
    of images. `download`: the zip is fetched if neither is there. Raises BadInput where that fails, and for
    damaged files.
    """
    source = _source(Path(root), download)
    content = cached(_FOLDER, Path(root), source.fingerprint, lambda: _build(source, verify))
    if verify and not content["verified"]:
        _verify(source, *_listing(source))
    return image_dataset(
        Split(content["train"], content["train_labels"]),
        Split(content["test"], content["test_labels"]),
        classes=int(content["classes"]),
        train_size=train_size,
        test_size=test_size,
        seed=seed,
        augment=augment,
        levels=content["levels"],
    )


def _source(root: Path, download: bool) -> Source:
    if (root / _FOLDER).is_dir() and not (root / _ZIP.path).exists():
        return Folder(root / _FOLDER, _PARTS)
    provide([_ZIP], root, download=download)
    return Zip(root / _ZIP.path, _FOLDER)


def _build(source: Source, verify: bool) -> Tensors:
    train, test = _listing(source)
    if verify:
        _verify(source, train, test)
    images = _decoded(source, train, "training")
    return {
        "train": images,
        "levels": count_levels(images),
        "train_labels": torch.tensor([label for _, label in train]),
        "test": _decoded(source, test, "validation"),
        "test_labels": torch.tensor([label for _, label in test]),
        "classes": torch.tensor(len(_wnids(source))),
        "verified": torch.tensor(verify),
    }


def _decoded(source: Source, images: Labelled, kind: str) -> Tensor:
    return decode(source.read, [name for name, _ in images], SIDE, f"decoding {source.path.name}: {kind} images")


def _wnids(source: Source) -> dict[str, int]:
    """The classes' names and labels."""
    return {wnid: label for label, wnid in enumerate(dict.fromkeys(_text(source, "wnids.txt").split()))}


def _listing(source: Source) -> tuple[Labelled, Labelled]:
    """The training images by class and number, the validation images in the order of their annotations."""
    label_of = _wnids(source)
    train: Labelled = []
    for name in source.names():
        match name.split("/"):
            case ["train", wnid, "images", image] if wnid in label_of and image.endswith(".JPEG"):
                train.append((name, label_of[wnid]))
    train.sort(key=lambda item: (item[1], len(item[0]), item[0]))  # so that _2 comes before _10
    if empty := label_of.keys() - {name.split("/")[1] for name, _ in train}:
        raise BadInput(f"{source.path} should hold images of every class in wnids.txt, found none of {min(empty)}.")
    return train, _annotated(source, label_of)


def _annotated(source: Source, label_of: dict[str, int]) -> Labelled:
    names, test = set(source.names()), []
    for line in _text(source, _ANNOTATIONS).splitlines():
        image, wnid, *_ = [*line.split("\t"), ""]
        if wnid not in label_of or f"val/images/{image}" not in names:
            raise BadInput(
                f"{source.path}: {_ANNOTATIONS} should give images in val/images and classes of wnids.txt,"
                f" found {line!r}."
            )
        test.append((f"val/images/{image}", label_of[wnid]))
    if not test:
        raise BadInput(f"{source.path}: {_ANNOTATIONS} should name the validation images, found none.")
    return test


def _text(source: Source, name: str) -> str:
    return source.read(name).decode(errors="replace")


def _verify(source: Source, train: Labelled, test: Labelled) -> None:
    """Raises BadInput unless a zip has the published checksum, a folder the published numbers of images."""
    if isinstance(source, Zip):
        check_md5(source.path, _ZIP.md5)
        return
    per_class = Counter(Counter(label for _, label in train).values())
    if (per_class, len(test)) != _PUBLISHED_COUNTS:
        raise BadInput(
            f"{source.path} should hold 500 training images of each of 200 classes and 10,000 validation"
            f" images, found {len(train)} of {per_class.total()} classes and {len(test)}: unpack it again, or"
            " accept a subset with dataset.verify=false."
        )
