import os
import struct
import zipfile
from pathlib import Path

import pytest

from runner.dataset import sources
from runner.dataset.sources import Folder, Source, Zip
from runner.errors import BadInput

FILES = {"top.txt": b"1", "train/a/images/0": b"22", "train/b/images/1": b"333", "val/images/2": b"4444"}
PARTS = ("top.txt", "train/*/images/*", "val/images/*")


@pytest.fixture(params=["folder", "zip"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Source:
    if request.param == "zip":
        with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("__MACOSX/train/a/images/0", b"other")
            archive.mkdir("data/train")
            for name, content in FILES.items():
                archive.writestr(f"data/{name}", content)
        return Zip(tmp_path / "a.zip", "data")
    for name, content in {**FILES, "notes": b"", "train/a/boxes.txt": b""}.items():
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_bytes(content)
    return Folder(tmp_path / "data", PARTS)


def test_read_alike(source: Source) -> None:
    assert sorted(source.names()) == sorted(FILES)
    for name, content in FILES.items():
        assert source.read(name) == content
    with pytest.raises(BadInput, match="cannot be read"):
        source.read("train/c/images/7")


def folder_fingerprint(path: Path) -> str:
    return Folder(path, PARTS).fingerprint


def test_fingerprint_of_a_folder(tmp_path: Path) -> None:
    """Other names, sizes or times of the files that count: another fingerprint."""
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
        os.utime(tmp_path / name, ns=(0, 0))
    seen = {folder_fingerprint(tmp_path)}
    path = tmp_path / "train" / "a" / "images" / "0"
    (tmp_path / "notes").touch()
    assert folder_fingerprint(tmp_path) in seen

    path.write_bytes(b"xyz")
    os.utime(path, ns=(0, 0))
    seen.add(folder_fingerprint(tmp_path))
    os.utime(path, ns=(0, 1))
    seen.add(folder_fingerprint(tmp_path))
    path.rename(path.with_name("9"))
    seen.add(folder_fingerprint(tmp_path))
    path.with_name("9").unlink()
    seen.add(folder_fingerprint(tmp_path))
    assert len(seen) == 5


def test_fingerprint_of_a_zip(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    seen = set()
    for content, time in ((b"x", 0), (b"xy", 0), (b"xy", 1)):
        path.write_bytes(content)
        os.utime(path, ns=(0, time))
        seen.add(Zip(path, "data").fingerprint)
    assert len(seen) == 3


@pytest.mark.parametrize("name", ["../outside", "data/../../outside", "/outside"])
def test_refuses_zips_with_entries_that_leave_the_folder(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("data/fine", b"")
        archive.writestr(name, b"")
    with pytest.raises(BadInput, match=r"a\.zip is refused: its entry .*outside' would leave the folder"):
        Zip(tmp_path / "a.zip", "data").names()


def test_refuses_entries_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether they say how much they hold, or lie."""
    monkeypatch.setattr(sources, "_LIMIT", 1000)
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data/bomb", bytes(100_000))
    with pytest.raises(BadInput, match="data/bomb cannot be read: it announces 100000 bytes, more than 1000"):
        Zip(path, "data").read("bomb")
    path.write_bytes(path.read_bytes().replace(struct.pack("<I", 100_000), struct.pack("<I", 500)))
    with pytest.raises(BadInput, match="data/bomb cannot be read"):
        Zip(path, "data").read("bomb")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_refuses_compressions_that_unpack_in_one_go(tmp_path: Path, method: int) -> None:
    """437 bytes of bzip2 that announce 500 would become 400 million in memory before they are found out."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("data/bomb", bytes(1000))
    with pytest.raises(BadInput, match="data/bomb cannot be read: it is compressed by method 1"):
        Zip(path, "data").read("bomb")


def test_refuses_zips_with_entries_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_ENTRIES", 10)
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(11):
            archive.writestr(f"data/{number}", b"")
    with pytest.raises(BadInput, match=r"a\.zip is refused: it should have at most 10 entries"):
        Zip(path, "data").names()


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04"])
def test_refuses_what_is_no_zip(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(BadInput, match="is no intact zip"):
        Zip(tmp_path / "a.zip", "data").names()


def test_refuses_damaged_entries(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data/file", b"content")
    path.write_bytes(path.read_bytes().replace(b"content", b"kontent"))
    with pytest.raises(BadInput, match="data/file cannot be read: Bad CRC"):
        Zip(path, "data").read("file")
