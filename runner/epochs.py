"""epochs.csv: what metrics.csv says, an epoch a row."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from runner.records import Cell

QUANTILES = {"q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}
STATISTICS = ("count", "mean", "std", *QUANTILES, "negative")
COLUMNS = ("epoch", "replica", "step", "train_loss", "train_error", "test_loss", "test_error")


def columns(probe_columns: Sequence[str]) -> list[str]:
    return [*COLUMNS, *(f"{column}_{statistic}" for column in probe_columns for statistic in STATISTICS)]


def statistics(values: Sequence[float]) -> dict[str, Cell]:
    """Count, mean, standard deviation (n - 1), quantiles and the fraction below zero of the finite values; all but the
    count stay empty where there are none, the standard deviation where there is one."""
    finite = np.array([value for value in values if np.isfinite(value)])
    if not len(finite):
        return {"count": 0}
    spread = {"std": float(finite.std(ddof=1))} if len(finite) > 1 else {}
    quantiles = dict(zip(QUANTILES, np.quantile(finite, list(QUANTILES.values())).tolist(), strict=True))
    means = {"mean": float(finite.mean()), "negative": float((finite < 0).mean())}
    return {"count": len(finite), **spread, **quantiles, **means}


class Epoch:
    """What is gathered during one epoch: the training loss and error of every step, the measured rows of probes."""

    def __init__(self, probe_columns: Sequence[str]) -> None:
        self.values: dict[str, list[float]] = {column: [] for column in probe_columns}
        self.loss: Tensor | float = 0.0
        self.wrong: Tensor | float = 0.0
        self.samples = 0

    def add_step(self, loss: Tensor, error: Tensor, samples: int) -> None:
        """Sums in float64 that stay on the device until the epoch's end."""
        self.loss = self.loss + loss.detach().double() * samples
        self.wrong = self.wrong + error.detach().double() * samples
        self.samples += samples

    def add_row(self, row: Mapping[str, Cell]) -> None:
        for column, values in self.values.items():
            if (cell := row.get(column)) is not None:
                values.append(float(cell))

    def row(self, test: Mapping[str, Cell]) -> dict[str, Cell]:
        """The epoch's row; the means over no steps stay empty."""
        cells: dict[str, Cell] = {
            f"{c}_{name}": v for c, vs in self.values.items() for name, v in statistics(vs).items()
        }
        if self.samples:
            cells |= {"train_loss": float(self.loss) / self.samples, "train_error": float(self.wrong) / self.samples}
        return {**cells, **test}

    def state(self) -> dict[str, Any]:
        return {
            "values": self.values,
            "loss": float(self.loss),
            "wrong": float(self.wrong),
            "samples": self.samples,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        self.values, self.samples = state["values"], state["samples"]
        self.loss, self.wrong = state["loss"], state["wrong"]
