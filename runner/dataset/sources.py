"""The files of a data set, in a folder or still in its zip, read alike."""

import hashlib
import os
import zipfile
import zlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Protocol

from runner.errors import BadInput

_LIMIT = 2**22  # bytes of one entry of a zip
_ENTRIES = 2**18  # of a zip; the largest published one has half as many
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others unpack in one go, whatever was announced


class Source(Protocol):
    """Files with names relative to the data set's folder."""

    path: Path

    @property
    def fingerprint(self) -> str:
        """Another one for other files, as far as names, sizes and times tell."""

    def names(self) -> list[str]:
        """All files, in no order."""

    def read(self, name: str) -> bytes:
        """One file's content; safe to call from several threads. Raises BadInput where it cannot be read."""


class Folder:
    """The files in some subfolders of `path`: those that the patterns `parts` name."""

    def __init__(self, path: Path, parts: tuple[str, ...]) -> None:
        self.path = path
        self._parts = parts

    @cached_property
    def _files(self) -> dict[str, tuple[int, int]]:
        return {name: stat for part in self._parts for name, stat in _scan(self.path, part.split("/"))}

    @property
    def fingerprint(self) -> str:
        lines = (f"{name} {size} {time}" for name, (size, time) in sorted(self._files.items()))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def names(self) -> list[str]:
        return list(self._files)

    def read(self, name: str) -> bytes:
        try:
            return (self.path / name).read_bytes()
        except OSError as error:
            raise BadInput(f"{self.path / name} cannot be read: {error}. The folder should be complete.") from error


def _scan(folder: Path, pattern: list[str], prefix: str = "") -> Iterator[tuple[str, tuple[int, int]]]:
    """Size and time (ns) of every file that the pattern of path components leads to; * is any component."""
    first, *rest = pattern
    if first != "*" and rest:
        yield from _scan(folder / first, rest, f"{prefix}{first}/")
        return
    if not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if rest and entry.is_dir():
                yield from _scan(folder / entry.name, rest, f"{prefix}{entry.name}/")
            elif not rest and first in ("*", entry.name):
                stat = entry.stat()
                yield prefix + entry.name, (stat.st_size, stat.st_mtime_ns)


class Zip:
    """The files below `folder` in the zip `path`."""

    def __init__(self, path: Path, folder: str) -> None:
        self.path = path
        self._folder = folder

    @property
    def fingerprint(self) -> str:
        stat = self.path.stat()
        return f"{self.path.name} {stat.st_size} {stat.st_mtime_ns}"

    @cached_property
    def _entries(self) -> dict[str, zipfile.ZipInfo]:
        entries: dict[str, zipfile.ZipInfo] = {}
        if len(self._zip.infolist()) > _ENTRIES:
            raise BadInput(f"{self.path} is refused: it should have at most {_ENTRIES} entries, found more.")
        for entry in self._zip.infolist():
            if entry.filename.startswith("/") or ".." in entry.filename.split("/"):
                raise BadInput(f"{self.path} is refused: its entry {entry.filename!r} would leave the folder.")
            if not entry.is_dir() and entry.filename.startswith(f"{self._folder}/"):
                entries[entry.filename.removeprefix(f"{self._folder}/")] = entry
        return entries

    @cached_property
    def _zip(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.path)
        except (OSError, zipfile.BadZipFile) as error:
            raise BadInput(f"{self.path} is no intact zip: {error}. Remove it, so that it is fetched again.") from error

    def names(self) -> list[str]:
        return list(self._entries)

    def read(self, name: str) -> bytes:
        try:
            entry = self._entries[name]
            if entry.file_size > _LIMIT:
                raise ValueError(f"it announces {entry.file_size} bytes, more than {_LIMIT}")
            if entry.compress_type not in _COMPRESSIONS:
                raise ValueError(f"it is compressed by method {entry.compress_type}, neither stored nor deflated")
            return self._zip.read(entry)  # which reads no more than announced, and checks the entry's checksum
        except (
            KeyError,
            ValueError,
            RuntimeError,
            OSError,
            EOFError,
            zlib.error,
            zipfile.BadZipFile,
        ) as error:
            raise BadInput(f"{self.path}: the entry {self._folder}/{name} cannot be read: {error}.") from error
