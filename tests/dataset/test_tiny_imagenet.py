import hashlib
import os
import shutil
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from make_data import make_tiny_imagenet, write_jpeg
from PIL import Image
from torch import Tensor

from runner.dataset import tiny_imagenet as module
from runner.dataset.base import Dataset
from runner.dataset.tiny_imagenet import tiny_imagenet
from runner.errors import BadInput


@pytest.fixture(scope="module")
def data(tiny_imagenet_root: Path) -> Dataset:
    return tiny_imagenet(root=str(tiny_imagenet_root), verify=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_tiny_imagenet(tmp_path, classes=3, train=12, test=7)


def zipped(folder: Path) -> Path:
    """The folder as a zip in its place."""
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder.parent))
    shutil.rmtree(folder)
    return path


def pixels(path: Path) -> Tensor:
    return torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)


def load(folder: Path, **options: bool) -> Dataset:
    return tiny_imagenet(root=str(folder.parent), **{"verify": False, **options})  # type: ignore[arg-type]


def test_shapes_and_statistics(data: Dataset) -> None:
    assert data.test is not None
    for split in (data.train, data.test):
        assert split.inputs.shape[1:] == (3, 64, 64)
        assert split.inputs.dtype == torch.uint8
        assert split.labels.dtype == torch.int64
    assert len(data.train.labels.bincount(minlength=data.classes).unique()) == 1
    assert data.crop_padding == 4
    pixels = data.train.inputs.double() / 255
    assert data.mean is not None
    assert data.std is not None
    torch.testing.assert_close(data.mean, pixels.mean((0, 2, 3)))
    torch.testing.assert_close(data.std, pixels.std((0, 2, 3), unbiased=False))


def test_images_and_labels_are_those_of_the_files(data: Dataset, tiny_imagenet_root: Path) -> None:
    """In the order of wnids.txt and of the images' numbers; grey ones are read as colours."""
    folder = tiny_imagenet_root / "tiny-imagenet-200"
    wnids = (folder / "wnids.txt").read_text().split()
    assert data.classes == len(wnids)
    per_class = len(data.train) // len(wnids)
    for index in range(0, len(data.train), 11):
        label, number = divmod(index, per_class)
        images = (folder / "train" / wnids[label] / "images").glob("*.JPEG")
        image = sorted(images, key=lambda path: int(path.stem.split("_")[1]))[number]
        assert torch.equal(data.train.inputs[index], pixels(image))
        assert data.train.labels[index] == label
    assert data.test is not None
    lines = (folder / "val" / "val_annotations.txt").read_text().splitlines()
    assert len(data.test) == len(lines)
    for index in range(0, len(lines), 11):
        name, wnid, *_ = lines[index].split("\t")
        image = folder / "val" / "images" / name
        assert torch.equal(data.test.inputs[index], pixels(image))
        assert data.test.labels[index] == wnids.index(wnid)


def test_greyscale_images_become_colours(data: Dataset) -> None:
    images = data.train.inputs
    grey = (images[:, 0] == images[:, 1]).flatten(1).all(1) & (images[:, 1] == images[:, 2]).flatten(1).all(1)
    assert 0 < grey.sum() < len(images)


def test_from_the_folder_or_the_zip(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    unpacked = load(folder)
    assert "decoding" in capfd.readouterr().err
    assert torch.equal(load(folder).train.inputs, unpacked.train.inputs)
    assert "decoding" not in capfd.readouterr().err  # from the cache
    zipped(folder)
    packed = load(folder)
    assert "tiny-imagenet-200.zip: training images" in capfd.readouterr().err
    for one, other in ((packed.train, unpacked.train), (packed.test, unpacked.test)):
        assert one is not None
        assert other is not None
        assert torch.equal(one.inputs, other.inputs)
        assert torch.equal(one.labels, other.labels)


def test_the_cache_follows_the_files(folder: Path) -> None:
    before = load(folder)
    wnid = (folder / "wnids.txt").read_text().split()[1]
    image = folder / "train" / wnid / "images" / f"{wnid}_4.JPEG"
    other = folder / "train" / wnid / "images" / f"{wnid}_5.JPEG"
    image.write_bytes(other.read_bytes())
    after = load(folder)
    assert torch.equal(after.train.inputs[12 + 4], before.train.inputs[12 + 5])
    (folder / "val" / "val_annotations.txt").write_text(f"val_3.JPEG\t{wnid}\t0\t0\t1\t1\n")
    test = load(folder).test
    assert test is not None
    assert test.labels.tolist() == [1]
    image.unlink()
    assert len(load(folder).train) == 35


def test_a_folder_must_have_the_published_counts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = "found 36 of 3 classes and 7: unpack it again, or accept a subset with dataset.verify=false"
    for _ in range(2):  # before and after the cache is made
        with pytest.raises(BadInput, match=message):
            load(folder, verify=True)
        load(folder)
    monkeypatch.setattr(module, "_PUBLISHED_COUNTS", (Counter({12: 3}), 7))
    load(folder, verify=True)


def test_a_zip_must_have_the_published_checksum(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zipped(folder)
    for _ in range(2):
        with pytest.raises(BadInput, match=r"has the md5 .*90528d7ca1a48142e341f4ef8d21d0de.*dataset.verify=false"):
            load(folder, verify=True)
        load(folder)
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    monkeypatch.setattr(module, "_ZIP", replace(module._ZIP, md5=md5))
    load(folder, verify=True)


def test_a_missing_zip_is_fetched(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = load(folder)
    path = zipped(folder)
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    monkeypatch.setattr(module, "_ZIP", replace(module._ZIP, url=path.as_uri(), md5=md5))
    with pytest.raises(BadInput, match=r"Missing below data_root=.*new: tiny-imagenet-200.zip"):
        tiny_imagenet(root=str(tmp_path / "new"), download=False)
    fetched = tiny_imagenet(root=str(tmp_path / "new"))
    assert torch.equal(fetched.train.inputs, there.train.inputs)


def test_broken_images_are_named(folder: Path) -> None:
    wnid = (folder / "wnids.txt").read_text().split()[0]
    path = folder / "train" / wnid / "images" / f"{wnid}_3.JPEG"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(BadInput, match=rf"{wnid}_3\.JPEG is no intact JPEG of 64 x 64 pixels: image file is truncated"):
        load(folder)
    write_jpeg(path, side=32)
    with pytest.raises(BadInput, match=rf"{wnid}_3\.JPEG is no intact JPEG of 64 x 64 pixels: it has 32 x 32"):
        load(folder)


@pytest.mark.parametrize(
    "line", ["val_0.JPEG\tn99999999\t0\t0\t1\t1", "val_0.JPEG", "missing.JPEG\t{wnid}", "../../wnids.txt\t{wnid}"]
)
def test_wrong_annotations_are_named(folder: Path, line: str) -> None:
    wnid = (folder / "wnids.txt").read_text().split()[0]
    (folder / "val" / "val_annotations.txt").write_text(line.format(wnid=wnid))
    with pytest.raises(BadInput, match=r"val_annotations.txt should give .*, found '"):
        load(folder)


def test_incomplete_folders_are_named(folder: Path) -> None:
    wnid = (folder / "wnids.txt").read_text().split()[2]
    shutil.rmtree(folder / "train" / wnid)
    with pytest.raises(BadInput, match=f"found none of {wnid}"):
        load(folder)
    (folder / "val" / "val_annotations.txt").unlink()
    (folder / "wnids.txt").unlink()
    with pytest.raises(BadInput, match=r"wnids.txt cannot be read"):
        load(folder)


def test_read_only_roots_use_the_users_cache(folder: Path) -> None:
    folder.parent.chmod(0o555)
    try:
        data = load(folder)
        assert os.listdir(folder.parent) == [folder.name]
        assert torch.equal(load(folder).train.inputs, data.train.inputs)
    finally:
        folder.parent.chmod(0o755)
