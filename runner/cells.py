"""The cells of rows: of one network, or of several side by side."""

from collections.abc import Mapping, Sequence

import torch

# Of networks side by side a tensor (R,) has one number each, a list one or None.
Cell = torch.Tensor | float | int | str | None | list["Cell"]
Cells = dict[str, Cell]  # by column


def text(cell: Cell) -> str:
    """Empty = not measured; nan and inf = measured and not finite; the fewest digits that give the number back in its
    own precision."""
    if cell is None:
        return ""
    if isinstance(cell, torch.Tensor):
        return str(cell.detach().cpu().numpy()[()])
    return repr(cell) if isinstance(cell, float) else str(cell)


def texts(cell: Cell, count: int) -> list[str]:
    """The cell of each of `count` rows: a list or a tensor (count,) has one for each, all else is the same for all."""
    if isinstance(cell, list):
        return [text(one) for one in cell]
    if isinstance(cell, torch.Tensor) and cell.dim():
        return [str(one) for one in cell.detach().cpu().numpy()]
    return [text(cell)] * count


def rows_in(cells: Mapping[str, Cell]) -> int:
    """How many networks the cells are of."""
    stacks = (c for c in cells.values() if isinstance(c, list) or (isinstance(c, torch.Tensor) and c.dim()))
    return next((len(stack) for stack in stacks), 1)


def pick(cells: Cells, rows: Sequence[int] | None) -> Cells:
    """The cells of these networks only."""
    if rows is None:
        return cells
    return {k: _picked(v, list(rows)) for k, v in cells.items()}


def _picked(cell: Cell, rows: list[int]) -> Cell:
    if isinstance(cell, list):
        return [cell[row] for row in rows]
    return cell[rows] if isinstance(cell, torch.Tensor) and cell.dim() else cell


def spread(cells: Cells, rows: Sequence[int], count: int) -> Cells:
    """The opposite: cells of these networks as cells of all `count`, nan for the others."""
    found: Cells = {}
    for name, cell in cells.items():
        if isinstance(cell, torch.Tensor) and cell.dim():
            full = cell.new_full((count,), float("nan"))
            full[list(rows)] = cell
            cell = full
        found[name] = cell
    return found


def joined(parts: Sequence[Mapping[str, Cell]]) -> Cells:
    """The cells of all networks, from those of some at a time."""
    if len(parts) == 1:
        return dict(parts[0])
    columns = {name: [part[name] for part in parts] for name in parts[0]} if parts else {}
    counts = [rows_in(part) for part in parts]
    return {name: _one(found, counts) for name, found in columns.items()}


def _one(cells: Sequence[Cell], counts: Sequence[int]) -> Cell:
    if all(cell is None for cell in cells):
        return None
    if not any(cell is None or isinstance(cell, list) for cell in cells):
        return torch.cat([torch.as_tensor(cell).reshape(-1) for cell in cells])
    return [one for cell, count in zip(cells, counts, strict=True) for one in _each(cell, count)]


def _each(cell: Cell, count: int) -> list[Cell]:
    """The cells of `count` networks side by side."""
    if cell is None:
        return [None] * count
    return cell if isinstance(cell, list) else list(torch.as_tensor(cell).reshape(-1))
