import gzip
import hashlib
import shutil
from pathlib import Path

import pytest
import torch
from make_data import make_mnist, write_idx

from runner.dataset import mnist as module
from runner.dataset.base import Dataset
from runner.dataset.mnist import mnist, read_idx
from runner.errors import BadInput


@pytest.fixture(scope="module")
def data(mnist_root: Path) -> Dataset:
    return mnist(root=str(mnist_root), verify=False)


def test_shapes_and_statistics(data: Dataset) -> None:
    assert data.test is not None
    for split in (data.train, data.test):
        assert split.inputs.shape[1:] == (1, 28, 28)
        assert split.inputs.dtype == torch.uint8
        assert split.labels.dtype == torch.int64
        assert split.labels.unique().tolist() == list(range(10))
    assert data.classes == 10
    assert data.crop_padding is None
    assert data.mean is not None
    assert data.std is not None
    pixels = data.train.inputs.double() / 255
    torch.testing.assert_close(data.mean, pixels.mean()[None])
    torch.testing.assert_close(data.std, pixels.std(unbiased=False)[None])


def test_the_real_files_as_torchvision_reads_them(real_root: Path | None, tmp_path: Path) -> None:
    if real_root is None or not (real_root / "MNIST").exists():
        pytest.skip("RUNNER_DATA_ROOT names no MNIST")
    from torchvision.datasets import MNIST

    data = mnist(root=str(real_root))  # verified
    assert data.test is not None
    shutil.copytree(real_root / "MNIST", tmp_path / "MNIST", copy_function=shutil.copyfile)
    for folder in (tmp_path / "MNIST", tmp_path / "MNIST" / "raw"):
        folder.chmod(0o755)
    for split, train in ((data.train, True), (data.test, False)):
        theirs = MNIST(str(tmp_path), train=train, download=True)  # finds them there and unpacks them
        assert torch.equal(split.inputs[:, 0], theirs.data)
        assert torch.equal(split.labels, theirs.targets)
    unpacked = mnist(root=str(tmp_path))  # verified
    assert torch.equal(unpacked.train.inputs, data.train.inputs)
    assert data.mean is not None
    assert data.mean.item() == pytest.approx(0.1307, abs=1e-4)  # as everybody has it


def test_published_checksums_are_those_that_torchvision_has() -> None:
    from torchvision.datasets import MNIST

    assert {f"{stem}.gz": md5 for stem, (md5, _) in module._MD5.items()} == dict(MNIST.resources)


def test_packed_or_not(tmp_path: Path) -> None:
    raw = make_mnist(tmp_path)
    packed = mnist(root=str(tmp_path), verify=False)
    for path in list(raw.glob("*.gz")):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    plain = mnist(root=str(tmp_path), verify=False, download=False)
    assert torch.equal(packed.train.inputs, plain.train.inputs)
    assert torch.equal(packed.train.labels, plain.train.labels)


def test_subsets_are_balanced(mnist_root: Path) -> None:
    data = mnist(root=str(mnist_root), verify=False, train_size=30, test_size=10, seed=5)
    assert data.test is not None
    assert data.train.labels.bincount().tolist() == [3] * 10
    assert data.test.labels.bincount().tolist() == [1] * 10
    again = mnist(root=str(mnist_root), verify=False, train_size=30, test_size=10, seed=5)
    other = mnist(root=str(mnist_root), verify=False, train_size=30, test_size=10, seed=6)
    assert torch.equal(data.train.inputs, again.train.inputs)
    assert not torch.equal(data.train.inputs, other.train.inputs)
    with pytest.raises(BadInput, match=r"dataset\.train_size should be from 1 to"):
        mnist(root=str(mnist_root), verify=False, train_size=10**6)


def test_other_checksums_need_verify_false(tmp_path: Path) -> None:
    raw = make_mnist(tmp_path)
    with pytest.raises(BadInput, match=r"train-images.*f68b3c2dcbeaaa9fbdd348bbdeb94873.*dataset.verify=false"):
        mnist(root=str(tmp_path))
    path = raw / "train-images-idx3-ubyte.gz"
    path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
    path.unlink()
    with pytest.raises(BadInput, match="6bbc9ace898e44ae57da46a324031adb"):
        mnist(root=str(tmp_path))


def test_missing_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = make_mnist(tmp_path)
    (raw / "t10k-labels-idx1-ubyte.gz").unlink()
    monkeypatch.setattr(module, "_URL", "http://127.0.0.1:9/")
    for download in (True, False):
        with pytest.raises(BadInput, match=r"MNIST/raw/t10k-labels-idx1-ubyte\.gz") as caught:
            mnist(root=str(tmp_path), verify=False, download=download)
        assert "train-images" not in str(caught.value)


def test_missing_files_are_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mnist_root: Path) -> None:
    raw = mnist_root / "MNIST" / "raw"
    monkeypatch.setattr(module, "_URL", f"{raw.as_uri()}/")
    for stem in list(module._MD5):
        md5 = hashlib.md5((raw / f"{stem}.gz").read_bytes()).hexdigest()
        monkeypatch.setitem(module._MD5, stem, (md5, ""))
    fetched, there = mnist(root=str(tmp_path)), mnist(root=str(mnist_root))
    assert torch.equal(fetched.train.inputs, there.train.inputs)


DAMAGES = {
    "cut": lambda data: data[:-1],
    "longer": lambda data: data + b"x",
    "of floats": lambda data: data[:2] + b"\x0d" + data[3:],
    "of two dimensions": lambda data: data[:3] + b"\x02" + data[4:],
    "of another size": lambda data: data[:15] + b"\x1d" + data[16:],
    "announcing too much": lambda data: data[:4] + b"\xff\xff\xff\xff" + data[8:],
    "header only": lambda data: data[:9],
    "empty": lambda data: b"",
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_refuses_damaged_idx_files(tmp_path: Path, damage: str, suffix: str) -> None:
    good, bad = tmp_path / "good", tmp_path / f"bad{suffix}"
    write_idx(good, torch.arange(5 * 28 * 28).view(5, 28, 28).numpy())
    data = DAMAGES[damage](good.read_bytes())
    bad.write_bytes(gzip.compress(data) if suffix else data)
    with pytest.raises(BadInput, match=f"bad{suffix} is no intact IDX file"):
        read_idx(bad, (28, 28))
    assert read_idx(good, (28, 28)).shape == (5, 28, 28)


def test_refuses_damaged_gzip_files(tmp_path: Path) -> None:
    path = tmp_path / "file.gz"
    write_idx(path, torch.zeros(5, 28, 28).numpy())
    whole = path.read_bytes()
    for damaged in (whole[:-5], b"no gzip", whole[:30] + b"\xff\xff\xff" + whole[33:]):
        path.write_bytes(damaged)
        with pytest.raises(BadInput, match="no intact IDX file"):
            read_idx(path, (28, 28))


def test_refuses_labels_that_do_not_fit(tmp_path: Path) -> None:
    raw = make_mnist(tmp_path)
    write_idx(raw / "t10k-labels-idx1-ubyte.gz", torch.full((20,), 10).numpy())
    with pytest.raises(BadInput, match="t10k-labels-idx1-ubyte should hold labels from 0 to 9, found"):
        mnist(root=str(tmp_path), verify=False)
    shutil.copy(raw / "train-labels-idx1-ubyte.gz", raw / "t10k-labels-idx1-ubyte.gz")
    with pytest.raises(BadInput, match="20 images, 60 labels"):
        mnist(root=str(tmp_path), verify=False)
