"""The pictures of what the estimate of Figure 1 sees."""

from collections.abc import Iterator
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from runner.report.convex_fig1 import EXACT, Curvature, at_levels, in_forms, paper_setting
from runner.report.convex_fig1_plots import estimate_and_exact, halved, over_epochs
from runner.report.drawing import FORMULAS, curves, legend, symlog
from runner.report.study import Plot, Runs
from runner.report.style import PALETTE, ink, ordered, panels

CONFIG = ("recipe.setting", "arch.activation", "arch.norm", "optimizer.lr")
LINES = {
    "fd_gHg_mulr": "estimate, $\\mu$ = lr",
    "fd_gHg_mu1e-2": "estimate, $\\mu$ = 0.01",
    "fd_gHg_mu1e-3": "estimate, $\\mu$ = 0.001",
    "split_gHg": "exact",
}


def settings(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The rows of each setting, the paper's first."""
    names = sorted(rows["recipe.setting"].unique(), key=lambda name: (name != "paper", str(name)))
    return ((name, rows[rows["recipe.setting"] == name]) for name in names)


def described(rows: pd.DataFrame) -> str:
    """`ReLU, batch norm, rate 0.1`."""
    first = rows.iloc[0]
    activation = {"relu": "ReLU"}.get(first["arch.activation"], first["arch.activation"])
    return f"{activation}, {first['arch.norm']} norm, rate {first['optimizer.lr']:g}".replace("none norm", "no norm")


def what_it_sees(runs: Runs) -> Figure:
    """Rows are widths, columns settings; all in units of g'g / lr, in which the decorrelation level is lr / mu."""
    rows = runs.table("metrics", *CONFIG)
    widths, groups = sorted(rows["width"].unique()), list(settings(rows))
    figure, axes = panels(
        len(widths) * len(groups), columns=len(groups), width=2.9, height=2.6, sharex=True, sharey=True
    )
    for number, axis in enumerate(axes):
        width, (_, group) = widths[number // len(groups)], groups[number % len(groups)]
        shown = group[group["width"] == width]
        for (column, label), colour in zip(LINES.items(), (*PALETTE[:3], ink()), strict=True):
            scaled = in_forms(shown, Curvature(column, label))
            curves(
                axis, scaled, "epoch", "times_mu", by=None, colours=[colour], lw=1.8 if column == EXACT.column else 1.1
            )
            axis.lines[-1].set_label(label)
            decorrelated(axis, shown, column, colour)
        axis.plot([], [], "--", color=ink(), lw=0.9, label="its level without curvature, $g^{\\top}g/\\mu$")
        axis.set_yscale("symlog", linthresh=0.1)
        axis.axhline(0, color=ink(), lw=0.5)
        over_epochs(axis, halved(group))
        axis.set_title(f"{described(group)}\nwidth {width:g}", fontsize=8.5)
        if number < len(axes) - len(groups):
            axis.set_xlabel("")
    for row in range(len(widths)):
        axes[row * len(groups)].set_ylabel("$\\mu\\,g^{\\top}Hg\\,/\\,g^{\\top}g$, $\\mu$ = lr")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels) if len(groups) > 2 else 2)
    return figure


def decorrelated(axis: Any, rows: pd.DataFrame, column: str, colour: Any) -> None:
    """What an estimate is, in units of g'g / lr, where the second gradient is orthogonal to the first."""
    _, estimated, mu = column.partition("_mu")
    if estimated:
        rate = rows.dropna(subset=[column]).groupby("epoch")["lr"].mean()
        height = rate / (rate if mu == "lr" else float(mu))
        axis.plot(rate.index, height, "--", color=colour, lw=0.9, drawstyle="steps-post")


def parts(runs: Runs) -> Figure:
    """The paper's setting: estimate, exact value and its two parts, on the training batch and on the held-out one."""
    rows = paper_setting(runs)
    names = {
        "fd{}_gHg_mulr": "estimate, $\\mu$ = lr",
        "split{}_gHg": f"exact {FORMULAS['gHg']}",
        "split{}_gGg": FORMULAS["gGg"],
        "split{}_gHrg": FORMULAS["gHrg"],
    }
    figure, axes = panels(8, columns=4, width=3.1, height=2.7, sharex=True, sharey=True)
    everything = []
    for row, (batch, said) in enumerate({"": "training batch", "_heldout": "held-out batch"}.items()):
        for column, (name, title) in enumerate(names.items()):
            axis = axes[4 * row + column]
            shown = in_forms(rows, Curvature(name.format(batch), title))
            shown = shown.groupby(["width", "seed", "epoch"])["per_gg"].mean().reset_index()
            everything.append(shown["per_gg"])
            curves(axis, shown, "epoch", "per_gg")
            axis.set_title(f"{title}\n{said}", fontsize=9)
            over_epochs(axis, halved(rows))
            axis.set_xlabel(FORMULAS["epoch"] if row else "")
    for axis in axes:
        symlog(axis, pd.concat(everything), share=0.6)
    for axis in (axes[0], axes[4]):
        axis.set_ylabel("divided by $g^{\\top}g$")
    legend(axes[0])
    return figure


def at_equal_loss(runs: Runs) -> Figure:
    """The control of (c): every rate a column, the curves over the training loss in place of the epoch."""
    rows = runs.table("metrics", *CONFIG)
    rows = rows[(rows["arch.activation"] == "relu") & (rows["arch.norm"] == "batch")]
    rates = sorted(rows["optimizer.lr"].unique())
    figure, axes = panels(2 * len(rates), columns=len(rates), width=3.8, height=2.7, sharex=True)
    sources = (Curvature("fd_gHg_mulr", "estimate, $\\mu$ = lr"), EXACT)
    for number, axis in enumerate(axes):
        source, rate = sources[number // len(rates)], rates[number % len(rates)]
        _over_loss(axis, in_forms(rows[rows["optimizer.lr"] == rate], source))
        name = source.text if source is not EXACT else "exact"
        axis.set_title(f"{name}: {FORMULAS['gHg_over_gg']}, rate {rate:g}")
        axis.set_xlabel("training loss (falls to the right)" if number >= len(rates) else "")
    axes[0].invert_xaxis()
    axes[0].legend(loc="lower left")
    return figure


def _over_loss(axis: Any, rows: pd.DataFrame) -> None:
    """A point for each epoch of each run, and the medians at the levels of the loss at which claim (c) compares."""
    groups = rows.assign(level=at_levels(rows["loss"])).groupby("width")
    for (width, shown), colour in zip(groups, ordered(groups.ngroups), strict=True):
        points = shown.groupby(["seed", "epoch"])[["loss", "per_gg"]].mean()
        axis.plot(points["loss"], points["per_gg"], "o", ms=3, alpha=0.45, color=colour)
        middle = shown.groupby("level")[["loss", "per_gg"]].median()
        axis.plot(middle["loss"], middle["per_gg"], color=colour, lw=2, label=f"width {width:g}")
    symlog(axis, rows["per_gg"], share=0.6)


PLOTS = (
    Plot(
        "sees",
        "What the estimate sees, in units of g'g / lr; dashed, in its colour, what it is where it sees no curvature. "
        "Means over seeds with their range; dotted: the rate is halved. Symmetric-log axis, linear below 0.1.",
        what_it_sees,
    ),
    Plot(
        "parts",
        "The paper's setting, per g'g: the estimate, the exact value and its two parts; means over an epoch.",
        parts,
    ),
    Plot(
        "forms",
        "The three forms in which the claims are judged, on one symmetric-log scale a column; means over an epoch.",
        lambda runs: estimate_and_exact(runs, Curvature("fd_gHg_mulr", "the estimate")),
    ),
    Plot(
        "loss",
        "Controls: the same curves at equal training loss, for every rate (ReLU, batch norm); points are epochs "
        "of a run, lines medians at a level of the loss.",
        at_equal_loss,
    ),
)
