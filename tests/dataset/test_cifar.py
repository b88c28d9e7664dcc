import hashlib
import pickle
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from make_data import cifar_content, make_cifar10, make_cifar100, write_python2_pickle

from runner.dataset import cifar as module
from runner.dataset.cifar import cifar10, cifar100
from runner.errors import BadInput


def test_published_checksums_are_those_that_torchvision_has() -> None:
    from torchvision.datasets import CIFAR10, CIFAR100

    for layout, theirs in ((module._CIFAR10, CIFAR10), (module._CIFAR100, CIFAR100)):
        assert layout.folder == theirs.base_folder
        assert layout.archive.url == theirs.url
        assert layout.archive.path == theirs.filename
        assert layout.archive.md5 == theirs.tgz_md5
        assert dict(layout.train) == dict(map(tuple, theirs.train_list))
        assert dict(layout.test) == dict(map(tuple, theirs.test_list))


def test_cifar100(cifar100_root: Path) -> None:
    data = cifar100(root=str(cifar100_root), verify=False)
    with open(cifar100_root / "cifar-100-python" / "train", "rb") as file:
        content = pickle.load(file, encoding="bytes")
    assert torch.equal(data.train.inputs, torch.tensor(content[b"data"]).view(-1, 3, 32, 32))
    assert data.train.labels.tolist() == content[b"fine_labels"]
    assert data.train.inputs.dtype == torch.uint8
    assert data.train.labels.dtype == torch.int64
    assert data.test is not None
    assert data.test.inputs.shape[1:] == (3, 32, 32)
    assert data.classes == 100
    assert data.crop_padding == 4
    pixels = data.train.inputs.double() / 255
    assert data.mean is not None
    assert data.std is not None
    torch.testing.assert_close(data.mean, pixels.mean((0, 2, 3)))
    torch.testing.assert_close(data.std, pixels.std((0, 2, 3), unbiased=False))


def test_cifar10_joins_its_batches(cifar10_root: Path) -> None:
    data = cifar10(root=str(cifar10_root), verify=False, augment=False)
    images, labels = [], []
    for i in range(1, 6):
        with open(cifar10_root / "cifar-10-batches-py" / f"data_batch_{i}", "rb") as file:
            content = pickle.load(file, encoding="bytes")
        images.append(content[b"data"])
        labels += content[b"labels"]
    assert torch.equal(data.train.inputs.flatten(1), torch.tensor(np.concatenate(images)))
    assert data.train.labels.tolist() == labels
    assert data.classes == 10
    assert data.crop_padding is None


def test_subsets_are_balanced(cifar100_root: Path) -> None:
    data = cifar100(root=str(cifar100_root), verify=False, train_size=250, test_size=100)
    assert data.test is not None
    counts = data.train.labels.bincount(minlength=100)
    assert (int(counts.min()), int(counts.max()), int(counts.sum())) == (2, 3, 250)
    assert data.test.labels.bincount(minlength=100).tolist() == [1] * 100


def test_other_checksums_need_verify_false(cifar100_root: Path) -> None:
    """The real subset, too, is not the whole."""
    with pytest.raises(BadInput, match=r"train has the md5 .*16019d7e3df5f24257cddd939b257f8d.*dataset.verify=false"):
        cifar100(root=str(cifar100_root))


def test_labels_outside_the_classes_name_the_file(tmp_path: Path) -> None:
    path = make_cifar100(tmp_path) / "test"
    write_python2_pickle(path, cifar_content(3, fine_labels=np.array([1, 100, 2])))
    with pytest.raises(BadInput, match="test should hold labels from 0 to 99, found labels from 1 to 100"):
        cifar100(root=str(tmp_path), verify=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({b"data": np.zeros((2, 3072), np.uint8)}, "labels under the key labels"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 1.5]}, "labels under the key labels"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0]}, "2 images, 1 labels"),
        ({b"data": np.zeros((2, 3071), np.uint8), b"labels": [0, 1]}, r"an array \(N, 3072\), uint8"),
        ({b"data": np.zeros((2, 3072), np.float32), b"labels": [0, 1]}, r"an array \(N, 3072\), uint8"),
        ({b"data": [0], b"labels": [0]}, r"an array \(N, 3072\), uint8"),
        ([1, 2], "a list instead of a dict"),
    ],
)
def test_refuses_another_layout(tmp_path: Path, content: object, message: str) -> None:
    path = make_cifar10(tmp_path) / "data_batch_3"
    write_python2_pickle(path, content)
    with pytest.raises(BadInput, match=f"data_batch_3 .*{message}"):
        cifar10(root=str(tmp_path), verify=False)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    (make_cifar10(tmp_path) / "data_batch_2").unlink()
    with pytest.raises(BadInput, match="data_batch_2 is missing"):
        cifar10(root=str(tmp_path), verify=False)


def test_fetches_and_unpacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the archive, as the first run on a new machine does."""
    there, here = tmp_path / "there", tmp_path / "here"
    folder = make_cifar100(there)
    with tarfile.open(there / "a.tar.gz", "w:gz") as tar:
        tar.add(folder, arcname=folder.name)
    md5 = hashlib.md5((there / "a.tar.gz").read_bytes()).hexdigest()
    archive = replace(module._CIFAR100.archive, url=(there / "a.tar.gz").as_uri(), md5=md5)
    monkeypatch.setattr(module, "_CIFAR100", replace(module._CIFAR100, archive=archive))
    with pytest.raises(BadInput, match=r"cifar-100-python.tar.gz.*dataset.download is false"):
        cifar100(root=str(here), verify=False, download=False)
    with pytest.raises(BadInput, match="train has the md5"):  # what is in it is not the published one
        cifar100(root=str(here))
    assert torch.equal(
        cifar100(root=str(here), verify=False).train.inputs, cifar100(root=str(there), verify=False).train.inputs
    )


def test_a_local_archive_is_verified_before_it_is_unpacked(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"something else")
    with pytest.raises(BadInput, match=r"has the md5 .*, the published file has c58f30108f718f92721af3b95e74349a"):
        cifar10(root=str(tmp_path))
    with pytest.raises(BadInput, match="cannot be unpacked"):
        cifar10(root=str(tmp_path), verify=False)
