"""The kinds of pictures that people of this field expect. Each draws on given axes, in the style around the call."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm, SymLogNorm

from runner.report.statistics import Interval
from runner.report.style import ink, ordered

FORMULAS = {
    "gHg": "$g^{\\top}Hg$",
    "gGg": "$g^{\\top}Gg$",
    "gHrg": "$g^{\\top}H_r g$",
    "gHg_over_gg": "$g^{\\top}Hg\\,/\\,g^{\\top}g$",
    "train_loss": "training loss",
    "test_error": "test error",
    "epoch": "epoch",
    "step": "step",
    "width": "width $k$",
}
BINS = 60  # of a histogram of eigenvalues


def curves(
    axis: Any,
    frame: pd.DataFrame,
    x: str,
    y: str,
    by: str | None = "width",
    colours: Sequence[Any] | None = None,
    **line: Any,
) -> None:
    """The mean of `y` over runs at each `x`, a colour for each value of `by` in its order, with the band from the least
    to the greatest run."""
    groups = [(None, frame)] if by is None else list(frame.dropna(subset=[y]).groupby(by))
    for (value, rows), colour in zip(groups, colours or ordered(len(groups)), strict=False):
        table = rows.dropna(subset=[y]).groupby(x)[y].agg(["mean", "min", "max"])
        name = None if by is None else f"{by} {value:g}"
        mean_and_range(axis, table, color=colour, label=name, **line)
    axis.set_xlabel(FORMULAS.get(x, x))


def mean_and_range(axis: Any, table: pd.DataFrame, color: Any, **line: Any) -> None:
    """The `mean` over the table's index, with the band from `min` to `max`. A mean that changes its sign from row to
    row is dotted: lines between hundreds of rows would fill the panel."""
    mean = table["mean"].to_numpy(float)
    if len(mean) == 1:
        line = {**line, "marker": "o"}
    elif len(mean) > 100 and (mean[1:] * mean[:-1] < 0).mean() > 0.3:
        line = {**line, "ls": "", "marker": ".", "ms": 3, "mew": 0}
    axis.plot(table.index, mean, color=color, **line)
    axis.fill_between(table.index, table["min"], table["max"], color=color, alpha=0.2, lw=0)


def linear_part(values: Any, share: float = 0.9, least: float = 1e-3) -> float | None:
    """Up to where a symmetric-log axis is linear, a power of ten, so that no tick lies close to that of zero: beyond
    lies at least this `share` of the |values|, but for what is smaller than `least` of the largest. None where all are
    zero."""
    sizes = np.abs(np.asarray(values, float))
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    if not len(sizes):
        return None
    smallest = max(float(np.quantile(sizes, 1 - share)), least * float(sizes.max()))
    return float(10 ** np.floor(np.log10(smallest)))


def symlog(axis: Any, values: Any, share: float = 0.9, least: float = 1e-3) -> None:
    """A y axis that is linear around zero and logarithmic beyond."""
    threshold = linear_part(values, share, least)
    if threshold is None:
        return
    axis.set_yscale("symlog", linthresh=threshold)
    axis.yaxis.get_major_locator().set_params(numticks=9)
    axis.axhline(0, color=ink(), lw=0.6)


def eigenvalue_histogram(axis: Any, eigenvalues: Any, zero: float, **options: Any) -> None:
    """Counts of eigenvalues on a symmetric-log axis, linear within +-`zero`; the number of those within is said, since
    one bin of thousands hides all others."""
    values = np.asarray(eigenvalues, float)
    top = max(np.abs(values).max(), 10 * zero)
    edges = np.concatenate([-np.geomspace(top, zero, BINS // 2), np.geomspace(zero, top, BINS // 2)])
    axis.hist(values, bins=edges, **options)
    axis.set_xscale("symlog", linthresh=zero, linscale=0.5)
    axis.set_xticks(_symlog_ticks(zero, top))
    axis.set_yscale("log")
    axis.set_ylim(bottom=0.5)
    counts = (values < -zero).sum(), (np.abs(values) <= zero).sum(), (values > zero).sum()
    said = f"{counts[0]:,} negative   {counts[1]:,} at zero (|λ| ≤ {zero:g})   {counts[2]:,} positive"
    axis.text(0.5, 1.02, said, transform=axis.transAxes, ha="center", fontsize=8)
    axis.set_xlabel("eigenvalue")
    axis.set_ylabel("count")
    axis.tick_params(labelbottom=True)  # also where the panel below, which would have them, is none


def _symlog_ticks(zero: float, top: float) -> list[float]:
    """Zero, and at most three powers of ten on either side that are not near it."""
    low, high = int(np.ceil(np.log10(2 * zero))), int(np.ceil(np.log10(top)))
    powers = [10.0**power for power in range(high, low - 1, -max(1, -(-(high - low + 1) // 3)))]
    return [-one for one in powers] + [0.0, *reversed(powers)]


def heat_map(axis: Any, matrix: Any) -> Any:
    """A symmetric matrix, zero at the middle of the colours, logarithmic beyond the median |entry|."""
    values = np.asarray(matrix, float)
    sizes = np.abs(values[values != 0])
    top = sizes.max() if len(sizes) else 1.0
    middle = float(np.clip(np.median(sizes) if len(sizes) else top, top * 1e-4, top / 2))
    shown = axis.imshow(values, cmap="RdBu_r", norm=SymLogNorm(middle, vmin=-top, vmax=top), interpolation="nearest")
    bar = axis.figure.colorbar(shown, ax=axis, shrink=0.8)
    decades = 10.0 ** np.arange(np.ceil(np.log10(1.5 * middle)), np.floor(np.log10(top)) + 1)
    if len(decades):  # those that do not lie on zero's label
        bar.set_ticks([*-decades[::-1], 0, *decades])
        bar.minorticks_off()
    for spine in axis.spines.values():
        spine.set_visible(False)
    return shown


def scaling(axis: Any, x: Any, y: Any, slope: Interval, label: str, **line: Any) -> None:
    """Points in a log-log plane with the line of the fitted slope."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    (points,) = axis.plot(x, y, "o", label=f"{label} slope {slope}", **line)
    centre = np.exp(np.log(x).mean()), np.exp(np.log(y[y > 0]).mean())
    axis.plot(x, centre[1] * (x / centre[0]) ** slope.value, color=points.get_color(), lw=1)
    axis.set_xscale("log", base=2)
    axis.set_xticks(np.unique(x), [f"{one:g}" for one in np.unique(x)])
    axis.set_yscale("log")
    axis.legend()


def map_of(axis: Any, frame: pd.DataFrame, x: str, y: str, value: str, title: str) -> None:
    """The median of `value` over runs as a map over two settings (depth x width), each cell's number written in it."""
    table = frame.pivot_table(index=y, columns=x, values=value, aggfunc="median")
    numbers = table.to_numpy(float)
    shown = axis.imshow(
        np.where(numbers > 0, numbers, np.nan), cmap="viridis", norm=LogNorm(), aspect="auto", origin="lower"
    )
    for (row, column), number in np.ndenumerate(numbers):
        light = np.isfinite(number) and shown.norm(number) > 0.6
        axis.text(column, row, f"{number:.1e}", ha="center", va="center", fontsize=7,
                  color="black" if light else "white")  # fmt: skip
    axis.set_xticks(range(table.shape[1]), [f"{one:g}" for one in table.columns])
    axis.set_yticks(range(table.shape[0]), [f"{one:g}" for one in table.index])
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    axis.set_title(title)
    axis.figure.colorbar(shown, ax=axis, shrink=0.8)


def surface(figure: Any, place: Any, table: pd.DataFrame, title: str, labels: tuple[str, str, str]) -> Any:
    """A surface over a table's columns (x) and rows (y). Returns the axis."""
    axis = figure.add_subplot(place, projection="3d")
    x, y = np.meshgrid(table.columns.to_numpy(float), table.index.to_numpy(float))
    axis.plot_surface(x, y, table.to_numpy(float), cmap="viridis", lw=0, rcount=80, ccount=80)
    axis.set_title(title)
    for name, text in zip("xyz", labels, strict=True):
        getattr(axis, f"set_{name}label")(text)
    axis.set_facecolor(plt.rcParams["figure.facecolor"])
    for pane in (axis.xaxis, axis.yaxis, axis.zaxis):
        pane.set_pane_color((0.5, 0.5, 0.5, 0.08))
    return axis


def legend(axis: Any, title: str | None = None) -> None:
    if axis.get_legend_handles_labels()[0]:
        axis.legend(title=title)
