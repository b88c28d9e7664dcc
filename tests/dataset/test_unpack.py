import gzip
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.dataset import unpack as module
from runner.dataset.unpack import unpack
from runner.errors import BadInput


def entry(
    name: str, content: bytes = b"x", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(content), kind, link
    return info, content


def archive(path: Path, *entries: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content))
    return path


def test_unpacks_whole(tmp_path: Path) -> None:
    path = archive(
        tmp_path / "a.tar.gz",
        entry("folder", b"", tarfile.DIRTYPE),
        entry("folder/one", b"1"),
        entry("folder/sub/two", b"22"),
    )
    unpack(path, tmp_path / "folder")
    assert (tmp_path / "folder" / "one").read_bytes() == b"1"
    assert (tmp_path / "folder" / "sub" / "two").read_bytes() == b"22"
    path.write_bytes(b"")
    unpack(path, tmp_path / "folder")  # is there: nothing to do


@pytest.mark.parametrize(
    "hostile",
    [
        entry("../outside"),
        entry("folder/../../outside"),
        entry("/tmp/outside"),
        entry("elsewhere/file"),
        entry("folder/link", b"", tarfile.SYMTYPE, "/etc"),
        entry("folder/link", b"", tarfile.LNKTYPE, "folder/fine"),
        entry("folder/link", b"", tarfile.SYMTYPE, "../../outside"),
        entry("folder/link", b"", tarfile.LNKTYPE, "/etc/passwd"),
        entry("folder/pipe", b"", tarfile.FIFOTYPE),
        entry("folder/device", b"", tarfile.CHRTYPE),
        entry("folder/device", b"", tarfile.BLKTYPE),
        entry("folder/fine"),  # a second time
        entry("folder"),  # a file in the folder's place
    ],
    ids=lambda value: f"{value[0].name} {value[0].type.decode()} {value[0].linkname}",
)
def test_refuses_what_leaves_the_folder_or_is_no_file(tmp_path: Path, hostile: tuple[tarfile.TarInfo, bytes]) -> None:
    path = archive(tmp_path / "a.tar.gz", entry("folder/fine"), hostile)
    with pytest.raises(BadInput, match=r"a\.tar\.gz cannot be unpacked"):
        unpack(path, tmp_path / "folder")
    assert {entry.name for entry in tmp_path.iterdir()} == {"a.tar.gz", ".folder.lock"}


def pax_bomb() -> bytes:
    """An archive whose first header announces a long extended header."""
    info, _ = entry("folder/file", kind=tarfile.XHDTYPE)
    info.size = 5_000_000
    return info.tobuf(tarfile.USTAR_FORMAT) + bytes(info.size)


@pytest.mark.parametrize(
    "content",
    [
        lambda: entry("folder/zeros", bytes(5_000_000))[0].tobuf() + bytes(5_000_000),
        lambda: entry("folder/zeros", bytes(5_000_000), b"?")[0].tobuf() + bytes(5_000_000),
        pax_bomb,
    ],
    ids=["file", "unknown type, skipped", "extended header"],
)
def test_gives_up_on_archives_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Callable[[], bytes]
) -> None:
    monkeypatch.setattr(module, "LIMIT", 1_000_000)
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(content()))
    with pytest.raises(BadInput):
        unpack(path, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def long_name() -> bytes:
    info, _ = entry("././@LongLink", kind=tarfile.GNUTYPE_LONGNAME)
    info.size = 5_000_000
    return info.tobuf(tarfile.GNU_FORMAT) + b"a" * info.size


def pax_records() -> bytes:
    """Each record is one more entry of a dict, of which each takes more memory than the archive has bytes."""
    records = b"".join(b"14 k%06d=x\n" % number for number in range(300_000))
    info, _ = entry("folder/file", kind=tarfile.XHDTYPE)
    info.size = len(records)
    return info.tobuf(tarfile.USTAR_FORMAT) + records


@pytest.mark.parametrize("content", [pax_bomb, pax_records, long_name])
def test_gives_up_on_long_descriptions(tmp_path: Path, content: Callable[[], bytes]) -> None:
    """They are held in memory, whatever the limit on what is unpacked."""
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(content()))
    with pytest.raises(BadInput, match="it describes an entry by more than 65536 bytes"):
        unpack(path, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_gives_up_on_files_without_end(tmp_path: Path) -> None:
    """A file takes a block of the disk, and an inode, however little it holds."""
    path = archive(tmp_path / "a.tar.gz", *(entry(f"folder/{number}", b"") for number in range(1001)))
    with pytest.raises(BadInput, match="it holds more than 1000 files and folders"):
        unpack(path, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"no archive"])
def test_refuses_damaged_archives(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = archive(tmp_path / "a.tar.gz", entry("folder/one", bytes(range(256)) * 100))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BadInput, match="Remove it"):
        unpack(path, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
