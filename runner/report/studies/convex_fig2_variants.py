"""Figure 2 of the main paper under the other readings of what its text leaves open."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from runner.report import figure2
from runner.report.drawing import FORMULAS, legend, symlog
from runner.report.study import Claim, Finding, Plot, Runs, Study
from runner.report.style import PALETTE, ink, panels

PARTS = ("gHg", "gGg", "gHrg")


def metrics(runs: Runs) -> pd.DataFrame:
    """With the columns `data` (labels, batch), `net` (factor, layers) and `variant` (all of them)."""
    rows = runs.table("metrics", "dataset.labels", "loss.factor", "arch.depth", "batch_size")
    labels = rows["dataset.labels"].map(lambda text: "labels -1/1" if "-1" in str(text) else "labels 0/1")
    batch = rows["batch_size"].map(lambda size: "full batch" if pd.isna(size) else f"batch {size:g}")
    factor = rows["loss.factor"].map(lambda one: f"{one:g} (f - y)²")
    layers = rows["arch.depth"].map(lambda depth: f"{depth:g} layers")
    data, net = labels + ", " + batch, factor + ", " + layers
    return rows.assign(data=data, net=net, variant=data + ", " + net)


def seldom_negative(runs: Runs) -> Finding:
    return figure2.seldom_negative(metrics(runs), "variant", "({})")


def follows(runs: Runs) -> Finding:
    return figure2.follows(metrics(runs), "variant", "({})")


def in_each(runs: Runs) -> Figure:
    """What the two claims are judged by, in every variant, with intervals over starts."""
    frame = metrics(runs)
    kinds = sorted(frame["net"].unique())
    figure, axes = panels(2, columns=2, width=4.8, height=4.6, sharey=True)
    for axis, find, bar, least in (
        (axes[0], figure2.negative_share, figure2.SELDOM, 0.0),
        (axes[1], figure2.alike, figure2.CLOSE, -1.0),
    ):
        found = find(frame, "variant")
        places: list[str] = []
        for data, rows in frame.groupby("data"):
            for net, variant in dict(zip(rows["net"], rows["variant"], strict=True)).items():
                one = found[variant]
                at = -(len(places) * (len(kinds) + 1) + kinds.index(net))
                colour = PALETTE[kinds.index(net)]
                axis.plot([max(one.low, least), min(one.high, 1)], [at, at], color=colour, lw=1)
                axis.plot(one.value, at, "o", ms=4, color=colour, label=None if places else net)
            places.append(data)
        axis.axvline(bar, color=ink(), ls="--", lw=0.8)
        middles = [-(number * (len(kinds) + 1) + (len(kinds) - 1) / 2) for number in range(len(places))]
        axis.set_yticks(middles, places)
        axis.tick_params(axis="y", length=0)
    axes[0].set_title("share of steps with $g^{\\top}Hg < 0$")
    axes[1].set_title("rank correlation of the changes of $g^{\\top}Hg$ and $g^{\\top}Gg$")
    axes[0].legend(fontsize=8)
    return figure


def along_training(runs: Runs) -> Figure:
    """A row for each choice of labels and batch; columns are the loss and the three parts, over all starts and over a
    fiftieth of training at once: g'Hg jumps by decades from step to step."""
    frame = metrics(runs)
    groups = list(frame.groupby("data"))
    figure, axes = panels(4 * len(groups), columns=4, width=3.2, height=2.5, sharex=True)
    for row, (data, rows) in enumerate(groups):
        loss, *parts = axes[4 * row : 4 * row + 4]
        _medians(loss, rows, "train_loss")
        loss.set_yscale("log")
        loss.set_ylabel(data)
        for axis, part in zip(parts, PARTS, strict=True):
            _medians(axis, rows, f"split_{part}")
            symlog(axis, rows[[f"split_{one}" for one in PARTS]], least=1e-8)
        for axis in axes[4 * row : 4 * row + 4]:
            axis.set_xlabel("step" if row == len(groups) - 1 else "")
    for axis, name in zip(axes, ("train_loss", *PARTS), strict=False):
        axis.set_title(FORMULAS[name])
    legend(axes[0])
    return figure


def _medians(axis: Any, rows: pd.DataFrame, value: str) -> None:
    """Medians with the middle 80 %, a colour for each net."""
    for (net, own), colour in zip(rows.groupby("net"), PALETTE, strict=False):
        table = own.groupby(fiftieth(own))[value].quantile([0.1, 0.5, 0.9]).unstack()
        axis.plot(table.index, table[0.5], color=colour, label=net)
        axis.fill_between(table.index, table[0.1], table[0.9], color=colour, alpha=0.15, lw=0)


def fiftieth(rows: pd.DataFrame) -> pd.Series:
    """The middle of the fiftieth of training in which each step lies."""
    length = rows["step"].max() / 50
    return (np.floor(rows["step"] / length).clip(upper=49) + 0.5) * length


def below_zero(runs: Runs) -> Figure:
    """When g'Hg is negative, a panel for each choice of labels and batch."""
    frame = metrics(runs)
    groups = list(frame.assign(below=frame["split_gHg"] < 0).groupby("data"))
    figure, axes = panels(len(groups), columns=len(groups), width=3.2, height=2.8, sharex=True, sharey=True)
    for axis, (data, rows) in zip(axes, groups, strict=True):
        for (net, own), colour in zip(rows.groupby("net"), PALETTE, strict=False):
            shares = own.groupby(fiftieth(own))["below"].mean()
            axis.plot(shares.index, shares, color=colour, label=net)
        axis.set_title(data)
        axis.set_xlabel("step")
    axes[0].set_ylabel("share with $g^{\\top}Hg < 0$")
    axes[0].set_ylim(-0.02, 1.02)
    legend(axes[0])
    return figure


STUDY = Study(
    title="Figure 2 under other readings",
    paper="On the Convex Behavior of Deep Neural Networks in Relation to the Layers' Width",
    setting="As Figure 2 at one width, with what the paper leaves open chosen otherwise: labels 0/1 or -1/1, squared "
    "loss with or without the 1/2, 8 weight layers or 8 hidden ones, full batch or minibatches of 100.",
    claims=(
        Claim(
            "seldom negative",
            "(a) The curvature along the gradient is seldom negative.",
            figure2.SELDOM_RULE,
            seldom_negative,
        ),
        Claim("follows G", "(b) g'Hg follows g'Gg.", figure2.FOLLOWS_RULE, follows),
    ),
    plots=(
        Plot(
            "variants",
            "Means over starts with intervals that hold together with 95 %, as in the rules, whose "
            "thresholds are dashed.",
            in_each,
        ),
        Plot(
            "training",
            "Medians over starts and a fiftieth of the steps, with the middle 80 %; symmetric-log axes.",
            along_training,
        ),
        Plot("negative", "When: the share of starts, and of a fiftieth of the steps, with g'Hg < 0.", below_zero),
    ),
)
