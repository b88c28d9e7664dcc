"""CSV files that only grow by whole rows, and can be cut back to what a checkpoint knows."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from runner.errors import BadInput

Cell = torch.Tensor | float | int | str | None


def text(cell: Cell) -> str:
    """Empty = not measured; nan and inf = measured and not finite; the fewest digits that give the number back in its
    own precision."""
    if cell is None:
        return ""
    if isinstance(cell, torch.Tensor):
        return str(cell.detach().cpu().numpy()[()])
    return repr(cell) if isinstance(cell, float) else str(cell)


class Table:
    """An append-only CSV with its columns fixed from the start. Rows wait in memory and are written as one block."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path, self.columns = path, tuple(columns)
        self._pending: list[str] = []
        self.size = 0

    def start(self, size: int | None = None) -> None:
        """Open a new file (size None) or go on after the first `size` bytes of the one that is there."""
        if size is None:
            self.path.write_text(",".join(self.columns) + "\n")
            self.size = self.path.stat().st_size
            return
        check_length(self.path, size)
        with self.path.open("r+b") as file:
            file.truncate(size)
        self.size = size

    def add(self, row: Mapping[str, Cell]) -> None:
        if odd := row.keys() - set(self.columns):
            raise KeyError(f"{self.path.name} has no column {sorted(odd)}; it has {self.columns}")
        self._pending.append(",".join(text(row.get(column)) for column in self.columns) + "\n")

    def flush(self, sync: bool = False) -> int:
        """Write what waits, by one system call, and return the file's size in bytes. `sync`: so that it outlasts a
        power cut, as the checkpoint that knows of these rows will."""
        if self._pending or sync:
            block = "".join(self._pending).encode()
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND)
            try:
                written = os.write(descriptor, block)
                if written != len(block):
                    os.ftruncate(descriptor, self.size)
                    raise OSError(f"{self.path}: {written} of {len(block)} bytes could be written; is the disk full?")
                if sync:
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
            self.size += len(block)
            self._pending.clear()
        return self.size


def check_length(path: Path, size: int) -> None:
    """Refuse a table from which rows are missing that a checkpoint knows of."""
    found = path.stat().st_size if path.exists() else 0
    if found < size:
        raise BadInput(
            f"{path} should have at least the {size} bytes that the run has written, found {found}: "
            "put it back, or remove the run's folder to start again"
        )


def write_json(path: Path, content: Any) -> None:
    """Replace a JSON file as a whole."""
    aside = path.with_name(f"{path.name}.tmp")
    with aside.open("w") as file:
        json.dump(content, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)


def write_file(folder: Path, stem: str, content: Any) -> None:
    """`<stem>.npy` for a NumPy array, else `<stem>.pt`, written aside and renamed."""
    folder.mkdir(exist_ok=True)
    array = isinstance(content, np.ndarray)
    path = folder / f"{stem}.{'npy' if array else 'pt'}"
    aside = path.with_name(f"{path.name}.tmp")
    with aside.open("wb") as file:
        if array:
            np.save(file, content)
        else:
            torch.save(content, file)
    os.replace(aside, path)
