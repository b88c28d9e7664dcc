"""Figure 1 of the main paper: its pictures, per epoch, for the finite-difference estimate and for the exact value."""

from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from runner.report.convex_fig1 import ESTIMATE, EXACT, Curvature, in_forms, paper_setting
from runner.report.drawing import FORMULAS, curves, legend, symlog
from runner.report.statistics import finite
from runner.report.study import Plot, Runs
from runner.report.style import ink, panels

TITLES = {
    "raw": FORMULAS["gHg"],
    "per_gg": FORMULAS["gHg_over_gg"],
    "times_mu": "$\\mu\\,g^{\\top}Hg\\,/\\,g^{\\top}g$",
}


def as_in_the_paper(runs: Runs) -> Figure:
    """The estimate and the test error per epoch, with its spread and its sign over the steps of an epoch."""
    figure, axes = panels(4, columns=4, width=3.3, height=3.3)
    epochs, halvings = runs.epochs, halved(runs.metrics)
    name = ESTIMATE.column
    shown = {f"{name}_mean": "mean", f"{name}_std": "standard deviation", f"{name}_negative": "share of steps below 0"}
    for axis, (column, title) in zip(axes, shown.items(), strict=False):
        curves(axis, epochs, "epoch", column)
        axis.set_title(f"estimate of {FORMULAS['gHg']}: {title}")
    axes[2].set_ylim(-0.01, max(0.2, 1.05 * epochs[f"{name}_negative"].max()))
    tested = runs.metrics.dropna(subset=["test_error"])
    curves(axes[3], tested, "epoch", "test_error")
    axes[3].set_title(FORMULAS["test_error"])
    legend(axes[0])
    for axis in axes:
        over_epochs(axis, halvings)
    return figure


def estimate_and_exact(runs: Runs, estimate: Curvature = ESTIMATE) -> Figure:
    """The three forms per epoch: the estimate above, the exact value of the same steps below, on one scale."""
    figure, axes = panels(6, columns=3, width=4.0, height=2.9, sharex=True)
    rows = paper_setting(runs)
    halvings = halved(rows)
    found = {row: per_epoch(rows, one) for row, one in enumerate((estimate, EXACT))}
    for row, name in enumerate(("estimate at $\\mu$ = lr", "exact")):
        for column, (form, title) in enumerate(TITLES.items()):
            axis = axes[3 * row + column]
            curves(axis, found[row], "epoch", form)
            symlog(axis, pd.concat([one[form] for one in found.values()]), share=0.6)
            axis.set_title(f"{name}: {title}")
            over_epochs(axis, halvings)
            if row:
                axis.sharey(axes[column])
            else:
                axis.set_xlabel("")
    for axis in (axes[2], axes[5]):
        level(axis)
    limits(axes[:3], [pd.concat([one[form] for one in found.values()]) for form in TITLES])
    legend(axes[0])
    return figure


def per_epoch(rows: pd.DataFrame, curvature: Curvature) -> pd.DataFrame:
    """The means over an epoch of each run."""
    forms = in_forms(rows, curvature).groupby(["width", "seed", "epoch"])[[*TITLES, "loss"]]
    return forms.mean().reset_index()


def halved(rows: pd.DataFrame) -> list[float]:
    """The epochs at which the rate falls: where it first has each of its values but the largest."""
    first = rows.groupby(rows["lr"].round(10))["epoch"].min().sort_index(ascending=False)
    return [float(epoch) for epoch in first.iloc[1:]]


def over_epochs(axis: Any, halvings: list[float]) -> None:
    """Whole epochs on the x axis, a dotted line where the rate falls."""
    axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    for epoch in halvings:
        axis.axvline(epoch, color=ink(), lw=0.6, ls=":", alpha=0.7)


def level(axis: Any) -> None:
    """What mu times the estimate per g'g is when the second gradient is orthogonal to the first."""
    axis.axhline(1, color=ink(), lw=0.9, ls="--")
    axis.text(0.98, 0.9, "decorrelated", transform=axis.get_yaxis_transform(), ha="right", va="top", fontsize=8)


def limits(axes: list[Any], values: list[pd.Series]) -> None:
    """Room for all values of a shared axis."""
    for axis, one in zip(axes, values, strict=True):
        shown = finite(one)
        if len(shown):
            low, high = min(shown.min(), 0), max(shown.max(), 0)
            axis.set_ylim(low * 1.6 - 0.02 * (high - low), high * 1.6 + 0.02 * (high - low))


PLOTS = (
    Plot(
        "paper",
        "As in the paper, with the spread and the sign over the steps of an epoch; means over seeds with their range. "
        "Dotted: the rate is halved.",
        as_in_the_paper,
    ),
    Plot(
        "forms",
        "The estimate above, the exact value of the same steps below, on one symmetric-log scale a column; means over "
        "an epoch. Dashed: the level of an estimate that sees no curvature, because its second gradient is orthogonal "
        "to the first.",
        estimate_and_exact,
    ),
)
