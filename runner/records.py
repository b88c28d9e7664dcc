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
Cells = dict[str, Cell]  # by column; of networks side by side a tensor (R,) has one number each


def text(cell: Cell) -> str:
    """Empty = not measured; nan and inf = measured and not finite; the fewest digits that give the number back in its
    own precision."""
    if cell is None:
        return ""
    if isinstance(cell, torch.Tensor):
        return str(cell.detach().cpu().numpy()[()])
    return repr(cell) if isinstance(cell, float) else str(cell)


def texts(cell: Cell | list[Cell], count: int) -> list[str]:
    """The cell of each of `count` rows: a list or a tensor (count,) has one for each, all else is the same for all."""
    if isinstance(cell, list):
        return [text(one) for one in cell]
    if isinstance(cell, torch.Tensor) and cell.dim():
        return [str(one) for one in cell.detach().cpu().numpy()]
    return [text(cell)] * count


def rows_in(cells: Mapping[str, Cell | list[Cell]]) -> int:
    """How many networks the cells are of."""
    stacks = (c for c in cells.values() if isinstance(c, list) or (isinstance(c, torch.Tensor) and c.dim()))
    return next((len(stack) for stack in stacks), 1)


def pick(cells: Cells, rows: Sequence[int] | None) -> Cells:
    """The cells of these networks only."""
    if rows is None:
        return cells
    index = list(rows)
    return {k: v[index] if isinstance(v, torch.Tensor) and v.dim() else v for k, v in cells.items()}


def joined(parts: Sequence[Mapping[str, Cell]]) -> Cells:
    """The cells of all networks, from those of some at a time."""
    if len(parts) == 1:
        return dict(parts[0])
    columns = {name: [part[name] for part in parts] for name in parts[0]} if parts else {}
    return {name: _one(found) for name, found in columns.items()}


def _one(cells: Sequence[Cell]) -> Cell:
    if any(cell is None for cell in cells):
        return None
    return torch.cat([torch.as_tensor(cell).reshape(-1) for cell in cells])


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

    def add(self, cells: Mapping[str, Cell | list[Cell]]) -> None:
        """A row, or one for each network side by side."""
        if odd := cells.keys() - set(self.columns):
            raise KeyError(f"{self.path.name} has no column {sorted(odd)}; it has {self.columns}")
        count = rows_in(cells)
        columns = [texts(cells.get(column), count) for column in self.columns]
        self._pending.extend(",".join(row) + "\n" for row in zip(*columns, strict=True))

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
