"""epochs.csv: what metrics.csv says, an epoch a row."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from runner.cells import Cell, Cells, pick

QUANTILES = {"q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}
STATISTICS = ("count", "mean", "std", *QUANTILES, "negative")
COLUMNS = ("epoch", "replica", "step", "train_loss", "train_error", "test_loss", "test_error")


def columns(probe_columns: Sequence[str]) -> list[str]:
    return [*COLUMNS, *(f"{column}_{statistic}" for column in probe_columns for statistic in STATISTICS)]


def statistics(values: np.ndarray) -> dict[str, list[Cell]]:
    """Count, mean, standard deviation (n - 1), quantiles and the fraction below zero of the finite values of each row
    of (R, m); all but the count stay empty where there are none, the standard deviation where there is one."""
    if not np.isfinite(values).all():
        found = [statistics(row[None, np.isfinite(row)]) for row in values]
        return {name: [cells[name][0] for cells in found] for name in STATISTICS}
    count, m = values.shape
    if not m:
        return {name: [0 if name == "count" else None] * count for name in STATISTICS}
    quantiles = dict(zip(QUANTILES, np.quantile(values, list(QUANTILES.values()), axis=1).tolist(), strict=True))
    return {
        "count": [m] * count,
        "mean": values.mean(1).tolist(),
        "std": values.std(1, ddof=1).tolist() if m > 1 else [None] * count,
        **quantiles,
        "negative": (values < 0).mean(1).tolist(),
    }


class Epoch:
    """What is gathered during one epoch: the training loss and error of every step, the measured rows of probes; of
    each network, if there are several side by side."""

    def __init__(self, probe_columns: Sequence[str]) -> None:
        self.values: dict[str, list[list[float]]] = {column: [] for column in probe_columns}
        self.loss, self.wrong = np.zeros(1), np.zeros(1)
        self.samples = self.rows = 0

    def add_step(self, loss: Cell, error: Cell, samples: int) -> None:
        """Of the batch's samples, in float64."""
        self.loss = self.loss + _numbers(loss) * samples
        self.wrong = self.wrong + _numbers(error) * samples
        self.samples += samples

    def add_row(self, cells: Mapping[str, Cell]) -> None:
        self.rows += 1
        for column, values in self.values.items():
            if (cell := cells.get(column)) is not None:
                values.append(_numbers(cell).tolist())

    def keep(self, rows: Sequence[int]) -> None:
        """Only these networks go on."""
        self.values = {c: [[one[row] for row in rows] for one in vs] for c, vs in self.values.items()}
        if self.samples:
            self.loss, self.wrong = self.loss[list(rows)], self.wrong[list(rows)]

    def cells(self, test: Cells, rows: Sequence[int] | None = None) -> dict[str, Cell]:
        """The epoch's cells of each network, or of these; the means over no steps stay empty."""
        loss, wrong = ((total / self.samples).tolist() for total in (self.loss, self.wrong))
        found: dict[str, list[Cell]] = {"train_loss": loss, "train_error": wrong}
        for column, values in self.values.items():
            table = np.array(values).reshape(len(values), len(loss)).T
            found |= {f"{column}_{name}": cells for name, cells in statistics(np.ascontiguousarray(table)).items()}
        chosen = range(len(loss)) if rows is None else rows
        return {**{name: [cells[row] for row in chosen] for name, cells in found.items()}, **pick(test, rows)}

    def state(self) -> dict[str, Any]:
        sums = {"loss": self.loss.tolist(), "wrong": self.wrong.tolist()}
        return {"values": self.values, **sums, "samples": self.samples, "rows": self.rows}

    def load(self, state: Mapping[str, Any]) -> None:
        self.values, self.samples, self.rows = state["values"], state["samples"], state["rows"]
        self.loss, self.wrong = (np.array(state[name], dtype=np.float64).reshape(-1) for name in ("loss", "wrong"))


def _numbers(cell: Cell) -> np.ndarray:
    """One for each network, in float64."""
    if isinstance(cell, list):
        return np.array([np.nan if one is None else float(one) for one in cell], np.float64)  # type: ignore[arg-type]
    found = cell.detach().cpu().numpy() if isinstance(cell, Tensor) else np.array(cell)
    return found.astype(np.float64).reshape(-1)
