"""The pictures of a rate that the measured curvature drives, beside rates that are planned."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from runner.report.rates import DRIVEN, PLANNED, at_cost, best_of, finals
from runner.report.study import Plot, Runs
from runner.report.style import PALETTE, ink, panels

ARMS = (*PLANNED, *DRIVEN)
INKS = (PALETTE[0], PALETTE[2], PALETTE[6], PALETTE[5], PALETTE[3], PALETTE[1])
COLOURS = dict(zip(ARMS, INKS, strict=True))
FORMULAS = (
    "$g^{\\top}g\\,/\\,g^{\\top}Gg$",
    "$1.5\\,g^{\\top}g\\,/\\,g^{\\top}Gg$",
    "$\\mu\\,g^{\\top}Hg\\,/\\,g^{\\top}g \\to 1$",
)
LABELS = {arm: arm for arm in PLANNED} | {
    arm: f"{arm}: {formula}" for arm, formula in zip(DRIVEN, FORMULAS, strict=True)
}


def paths(runs: Runs) -> Figure:
    """Loss and rate over the cost, each schedule at the best of its initial rates."""
    rows = at_cost(runs)
    chosen = best_of(finals(rows))
    rows = rows.merge(chosen[["arm", "width", "initial"]].drop_duplicates())
    widths = sorted(rows["width"].unique())
    figure, axes = panels(2 * len(widths), columns=len(widths), width=4.0, height=2.7, sharex=True)
    for column, width in enumerate(widths):
        loss, rate = axes[column], axes[column + len(widths)]
        for arm in ARMS:
            own = rows[(rows["width"] == width) & (rows["arm"] == arm)]
            if len(own):
                band(loss, smooth(own), arm)
                band(rate, own.groupby("cost")["lr"].agg(["mean", "min", "max"]), arm)
        loss.set_title(f"width {width:g}")
        loss.set_yscale("log")
        start = max(line.get_ydata()[0] for line in loss.lines)
        loss.set_ylim(top=min(loss.get_ylim()[1], 3 * start))  # single runs leap by decades
        rate.set_yscale("log")
        rate.set_ylim(bottom=rows["lr"].quantile(0.5) / 300)  # a cosine goes to zero
        rate.set_xlabel("cost in training steps, measuring included")
    axes[0].set_ylabel("training loss")
    axes[len(widths)].set_ylabel("rate $\\mu$")
    shared_legend(figure, axes[0])
    return figure


def shared_legend(figure: Figure, axis: object) -> None:
    """One for all panels, below them."""
    assert isinstance(axis, plt.Axes)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=3)


def smooth(rows: pd.DataFrame) -> pd.DataFrame:
    """Geometric means over the seeds, of means over a hundredth of the budget."""
    bins = (rows["cost"] / rows["cost"].max() * 100).astype(int).clip(upper=99)
    means = rows.assign(bin=bins).groupby(["seed", "bin"])[["cost", "train_loss"]].mean().groupby("bin")
    table = means["train_loss"].agg([geometric, "min", "max"]).set_axis(["mean", "min", "max"], axis=1)
    return table.set_index(means["cost"].mean())


def geometric(values: pd.Series) -> float:
    return float(np.exp(np.log(values).mean()))


def band(axis: object, table: pd.DataFrame, arm: str) -> None:
    assert isinstance(axis, plt.Axes)
    axis.plot(table.index, table["mean"], color=COLOURS[arm], label=LABELS[arm])
    axis.fill_between(table.index, table["min"], table["max"], color=COLOURS[arm], alpha=0.15, lw=0)


def by_initial(runs: Runs) -> Figure:
    """What the choice of the initial rate costs: the loss at the end of the budget."""
    found = finals(at_cost(runs))
    widths = sorted(found["width"].unique())
    figure, axes = panels(len(widths), columns=len(widths), width=4.0, height=3.2, sharey=True)
    top = 10 ** found.loc[np.isfinite(found["loss"]), "loss"].max() * 10
    for axis, width in zip(axes, widths, strict=True):
        for number, arm in enumerate(ARMS):
            own = found[(found["width"] == width) & (found["arm"] == arm)]
            of_arm(axis, own.assign(place=own["initial"] * 1.04 ** (number - 2.5)), arm, top)
        if np.isinf(found["loss"]).any():
            axis.axhline(top, color=ink(), lw=0.5, ls=":")
            axis.annotate("diverged", (0.02, top), xycoords=("axes fraction", "data"), va="bottom", fontsize=8)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlabel("initial rate")
        axis.set_title(f"width {width:g}")
        ticks = sorted(found["initial"].unique())
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.xaxis.set_minor_locator(NullLocator())
    axes[0].set_ylabel("training loss at equal cost")
    shared_legend(figure, axes[0])
    return figure


def of_arm(axis: object, own: pd.DataFrame, arm: str, top: float) -> None:
    """The losses of one schedule over its initial rates, beside those of the others; crosses at `top`: diverged."""
    assert isinstance(axis, plt.Axes)
    losses = (10 ** own["loss"]).replace(np.inf, np.nan)
    table = losses.groupby(own["place"]).agg([geometric, "min", "max"])
    spread = [
        (table[high] - table[low]).clip(lower=0)  # of one seed it is zero to rounding
        for low, high in (("min", "geometric"), ("geometric", "max"))
    ]
    line, colour = "-" if arm in DRIVEN else "--", COLOURS[arm]
    axis.errorbar(
        table.index, table["geometric"], spread, label=LABELS[arm], marker="o", color=colour, ls=line, capsize=2
    )
    gone = own.loc[np.isinf(own["loss"]), "place"].unique()
    survivors = table.loc[table.index.isin(gone), "geometric"]
    axis.plot(survivors.index, survivors, "o", mfc=axis.get_facecolor(), color=colour, zorder=3)
    axis.plot(gone, [top] * len(gone), "x", color=colour, ms=8)


PLOTS = (
    Plot(
        "paths",
        "Each schedule at its best initial rate: means over seeds (of the loss geometric, over a hundredth of the "
        "cost) with their range. The claims are of the last tenth of the cost.",
        paths,
    ),
    Plot(
        "initial",
        "What the initial rate decides: geometric means over seeds with their range; hollow: of those seeds that did "
        "not diverge, where others did (crosses).",
        by_initial,
    ),
)
