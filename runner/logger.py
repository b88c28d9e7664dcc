"""Copies of what a run records, for other programs to show. metrics.csv and the tables beside it stay the record."""

import importlib.util
import numbers
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from runner.cells import Cell, Cells
from runner.errors import BadInput

IN_ROW = ("step", "epoch", "replica")  # which row it is, and not what was measured
PLACE = ("step", "replica", "index", "vector", "depth", "sample")  # which entry of a vector it is


class Logger(ABC):
    """Is told what a run records, after it is. Of networks side by side it gets replica 0, the run of the seed itself:
    the thousands are for the tables."""

    @classmethod
    @abstractmethod
    def check(cls) -> None:
        """Raises BadInput where what it needs is not installed."""

    @abstractmethod
    def begin(self, folder: Path, step: int) -> None:
        """The run in `folder` starts, or goes on, with w_step: what is there of this step and later ones is void."""

    @abstractmethod
    def row(self, cells: Mapping[str, float], step: int) -> None:
        """The cells of a row of metrics.csv that were measured."""

    @abstractmethod
    def spectra(self, values: Mapping[str, Sequence[float]], step: int) -> None:
        """Of a probe whose result is a vector: its numbers, by what they are."""

    @abstractmethod
    def flush(self) -> None:
        """See that nothing is lost that was told so far."""

    @abstractmethod
    def close(self) -> None:
        """Nothing more will come."""


class TensorBoard(Logger):
    """Scalars and histograms in `<run>/tensorboard/`. A run that goes on marks what came after its checkpoint as void,
    as TensorBoard understands it. One that is asked for later shows what came later."""

    @classmethod
    def check(cls) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise BadInput(
                "logger: tensorboard comes with the extra [track]; pip install -e '.[track]' where this came from"
            )

    def begin(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes its time, and may not be there

        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step)

    def row(self, cells: Mapping[str, float], step: int) -> None:
        for name, value in cells.items():
            self._writer.add_scalar(name, value, step)

    def spectra(self, values: Mapping[str, Sequence[float]], step: int) -> None:
        for name, entries in values.items():
            finite = np.asarray(entries, float)
            finite = finite[np.isfinite(finite)]
            if len(entries) == 1:
                self._writer.add_scalar(name, entries[0], step)
            elif len(finite):
                self._writer.add_histogram(name, finite, step)

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


LOGGERS: dict[str, type[Logger]] = {"tensorboard": TensorBoard}


def check_loggers(names: Sequence[str]) -> None:
    """Raises BadInput for a name that is not known, or twice there, and for what is not installed."""
    if set(names) - set(LOGGERS) or len(set(names)) != len(names):
        raise BadInput(f"logger should list some of {', '.join(LOGGERS)}, each once; found {list(names)}")
    for name in names:
        LOGGERS[name].check()


class Loggers:
    """All loggers of a run, given the rows as the tables get them."""

    def __init__(self, names: Sequence[str]) -> None:
        self._all = [LOGGERS[name]() for name in names]

    def begin(self, folder: Path, step: int) -> None:
        for logger in self._all:
            logger.begin(folder, step)

    def row(self, cells: Cells) -> None:
        if not self._all or (place := _first(cells)) is None:
            return
        found = {name: _number(cell, place) for name, cell in cells.items() if name not in IN_ROW}
        measured = {name: value for name, value in found.items() if value is not None}
        for logger in self._all:
            logger.row(measured, _step(cells))

    def spectra(self, name: str, rows: Iterable[Cells]) -> None:
        """The rows that a probe has added to its table at a step. Entries go together that share what is said in words:
        `hessian/H/batch/value`. The nodes of a quadrature are no sample of eigenvalues, and stay in the table."""
        if not self._all:
            return
        found: dict[str, list[float]] = {}
        step = 0
        for cells in rows:
            if (place := _first(cells)) is None or "weight" in cells:
                continue
            step = _step(cells)
            words = [cell for cell in cells.values() if isinstance(cell, str)]
            for column, cell in cells.items():
                if column not in PLACE and (value := _number(cell, place)) is not None:
                    found.setdefault("/".join([name, *words, column]), []).append(value)
        for logger in self._all:
            logger.spectra(found, step)

    def flush(self) -> None:
        for logger in self._all:
            logger.flush()

    def close(self) -> None:
        for logger in self._all:
            logger.close()


def _first(cells: Cells) -> int | None:
    """Where replica 0 is among the networks that the cells are of, None where it is not."""
    ids = torch.as_tensor(cells["replica"]).reshape(-1).tolist()
    return ids.index(0) if 0 in ids else None


def _step(cells: Cells) -> int:
    step = cells["step"]
    assert isinstance(step, int)
    return step


def _number(cell: Cell, place: int) -> float | None:
    """The number of one of the networks; None where there is none."""
    if isinstance(cell, list):
        cell = cell[place]
    if isinstance(cell, torch.Tensor):
        return float(cell[place] if cell.dim() else cell)
    return float(cell) if isinstance(cell, numbers.Real) else None
