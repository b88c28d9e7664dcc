"""CSV files that only grow by whole rows, and can be cut back to what a checkpoint knows."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from runner.cells import Cell, rows_in, texts
from runner.errors import BadInput, CannotWrite
from runner.writing import append, explained, whole

_CHUNK = 2**20


class Mark(NamedTuple):
    """What a checkpoint knows of a table: the file's size in bytes, and their SHA-256 in hexadecimal digits."""

    size: int
    sha256: str


class _Written(NamedTuple):
    """What of a table is in its file, and the rows that wait. One value, that is exchanged as a whole: an interrupt
    finds it either before or after a write."""

    size: int
    digest: Any  # hashlib's; its type has no public name
    waiting: list[str]


class Table:
    """An append-only CSV with its columns fixed from the start. Rows wait in memory and are written as one block."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path, self.columns = path, tuple(columns)
        self._written = _Written(0, hashlib.sha256(), [])
        self._file = (0, 0)

    def start(self, mark: Mark | None = None) -> None:
        """Begin a new file (None), or go on after the part of the one that is there that a checkpoint knows of, in the
        order of its columns: the config may name the probes in another one now."""
        if mark is None:
            self._open(os.O_CREAT | os.O_TRUNC, _Written(0, hashlib.sha256(), [",".join(self.columns) + "\n"]))
            self.flush()
        else:
            self._open(0, _Written(mark.size, verified(self.path, mark), []))
            self.columns = self._written_columns()

    def _written_columns(self) -> tuple[str, ...]:
        with self.path.open() as file:
            found = tuple(file.readline().rstrip("\n").split(","))
        if set(found) != set(self.columns):
            raise BadInput(f"{self.path} should have the columns {self.columns}, found {found}; choose another folder")
        return found

    def _open(self, how: int, written: _Written) -> None:
        with explained(self.path):
            descriptor = os.open(self.path, os.O_WRONLY | how, 0o644)
            try:
                os.ftruncate(descriptor, written.size)
                self._file, self._written = _identity(os.fstat(descriptor)), written
            finally:
                os.close(descriptor)

    def add(self, cells: Mapping[str, Cell]) -> None:
        """A row, or one for each network side by side."""
        if odd := cells.keys() - set(self.columns):
            raise KeyError(f"{self.path.name} has no column {sorted(odd)}; it has {self.columns}")
        count = rows_in(cells)
        columns = [texts(cells.get(column), count) for column in self.columns]
        self._written.waiting.extend(",".join(row) + "\n" for row in zip(*columns, strict=True))

    def flush(self, sync: bool = False) -> Mark:
        """Write what waits, by one system call, and say what is in the file now. `sync`: so that it outlasts a power
        cut, as the checkpoint that knows of these rows will. Raises CannotWrite, the rows still waiting."""
        if self._written.waiting or sync:
            with explained(self.path):
                descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND)
                try:
                    self._check_own(descriptor)
                    self._append(descriptor, sync)
                finally:
                    os.close(descriptor)
        return Mark(self._written.size, self._written.digest.hexdigest())

    def _append(self, descriptor: int, sync: bool) -> None:
        block, digest = "".join(self._written.waiting).encode(), self._written.digest.copy()
        digest.update(block)
        try:
            append(descriptor, block)
            if sync:
                os.fsync(descriptor)
            self._written = _Written(self._written.size + len(block), digest, [])
        except BaseException:
            os.ftruncate(descriptor, self._written.size)
            raise

    def _check_own(self, descriptor: int) -> None:
        """Another hand in the file, or another file in its place, would make a table that no run has measured."""
        found = os.fstat(descriptor)
        if found.st_size != self._written.size or _identity(found) != self._file:
            raise CannotWrite(
                f"{self.path} should be the file of {self._written.size} bytes that this run has written, found one of "
                f"{found.st_size} bytes that was changed or replaced meanwhile; put it back and start again"
            )


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def verified(path: Path, mark: Mark) -> Any:
    """The SHA-256 so far (hashlib's) of the part of a table that a checkpoint knows of. Raises BadInput where that is
    not there any more."""
    check_length(path, mark.size)
    digest, left = hashlib.sha256(), mark.size
    with path.open("rb") as file:
        while left and (chunk := file.read(min(left, _CHUNK))):
            digest.update(chunk)
            left -= len(chunk)
    if digest.hexdigest() != mark.sha256:
        raise BadInput(
            f"the first {mark.size} bytes of {path} should be those that the run has written (SHA-256 "
            f"{mark.sha256[:10]}…), found others ({digest.hexdigest()[:10]}…): put the file back, or remove the run's "
            "folder to start again"
        )
    return digest


def check_length(path: Path, size: int) -> None:
    """Refuse a table from which rows are missing that a checkpoint knows of."""
    found = path.stat().st_size if path.exists() else 0
    if found < size:
        raise BadInput(
            f"{path} should have at least the {size} bytes that the run has written, found {found}: "
            "put it back, or remove the run's folder to start again"
        )


def write_file(folder: Path, stem: str, content: Any) -> Path:
    """`<stem>.npy` for a NumPy array, else `<stem>.pt`, written aside and renamed, and not synced: its path."""
    array = isinstance(content, np.ndarray)
    path = folder / f"{stem}.{'npy' if array else 'pt'}"
    with explained(path):
        folder.mkdir(exist_ok=True)
    with whole(path, sync=False) as sink:
        if array:
            np.save(sink.stream, content)
        else:
            torch.save(content, sink.stream)
    return path
