"""Figure 2 of the main paper: g'Hg and its two parts along full-batch training of fully connected networks."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from runner.report import figure2
from runner.report.drawing import FORMULAS, curves, legend, symlog
from runner.report.study import Claim, Finding, Plot, Runs, Study
from runner.report.style import ordered, panels

PARTS = ("gHg", "gGg", "gHrg")


def seldom_negative(runs: Runs) -> Finding:
    """Claim (a)."""
    return figure2.seldom_negative(runs.metrics, "width", "at width {:g}")


def seldomer(runs: Runs) -> Finding:
    """The paper's thesis, of this figure."""
    return figure2.seldomer(runs.metrics)


def follows(runs: Runs) -> Finding:
    """Claim (b)."""
    return figure2.follows(runs.metrics, "width", "at width {:g}")


def starts_closer(runs: Runs) -> Finding:
    """Claim (c)."""
    return figure2.starts_closer(runs.metrics)


def along_training(runs: Runs) -> Figure:
    """The paper's three panels, the training loss, and how many starts are where claim (a) says they seldom are."""
    figure, axes = panels(5, columns=5, width=2.9, height=3.4)
    curves(axes[0], runs.metrics, "epoch", "train_loss")
    axes[0].set_yscale("log")
    axes[0].set_title(FORMULAS["train_loss"])
    legend(axes[0])
    for axis in axes[2:4]:
        axis.sharey(axes[1])
    for axis, part in zip(axes[1:4], PARTS, strict=True):
        curves(axis, runs.metrics, "epoch", f"split_{part}")
        symlog(axis, runs.metrics[[f"split_{one}" for one in PARTS]], least=1e-8)
        axis.set_title(FORMULAS[part])
    below = runs.metrics.assign(below=(runs.metrics["split_gHg"] < 0).astype(float))
    shares = below.groupby(["width", "epoch"], as_index=False)["below"].mean()
    curves(axes[4], shares, "epoch", "below")
    axes[4].set_ylim(-0.02, 1.02)
    axes[4].set_title("share of starts with $g^{\\top}Hg < 0$")
    return figure


def starts(runs: Runs) -> Figure:
    """|g'H_r g| / g'g of every start, with the means that claim (c) is about."""
    figure, axis = plt.subplots(figsize=(4.6, 3.2))
    start = figure2.at_start(runs.metrics)
    for (width, rows), colour in zip(start.groupby("width"), ordered(start["width"].nunique()), strict=True):
        axis.plot(np.full(len(rows), width), rows["size"], "o", color=colour, alpha=0.6)
        axis.plot([width * 0.8, width * 1.25], [rows["size"].mean()] * 2, color=colour, lw=2.5)
    axis.set_xscale("log", base=2)
    axis.set_xticks(start["width"].unique(), [f"{one:g}" for one in start["width"].unique()])
    axis.set_yscale("log")
    axis.set_xlabel(FORMULAS["width"])
    axis.set_title("$|g^{\\top}H_r g|\\,/\\,g^{\\top}g$ at the start: each, and the mean")
    return figure


STUDY = Study(
    title="Figure 2: the split of fully connected networks over width",
    paper="On the Convex Behavior of Deep Neural Networks in Relation to the Layers' Width",
    setting="8 weight layers of 50 k units, ReLU, 1000 Gaussian inputs of unit norm with random labels {0, 1}, squared "
    "loss, full-batch gradient descent at rate 0.3 (activation, labels, rate and init are not given in the paper).",
    claims=(
        Claim(
            "seldom negative",
            "(a) The curvature along the gradient is seldom negative.",
            figure2.SELDOM_RULE,
            seldom_negative,
        ),
        Claim(
            "seldomer negative",
            "(ours) The wider the network, the seldomer the curvature along the gradient is negative.",
            figure2.SELDOMER_RULE,
            seldomer,
        ),
        Claim(
            "follows G",
            "(b) g'Hg follows g'Gg.",
            figure2.FOLLOWS_RULE,
            follows,
        ),
        Claim(
            "starts closer to zero",
            "(c) g'H_r g starts closer to zero in wider networks.",
            figure2.STARTS_RULE,
            starts_closer,
        ),
    ),
    plots=(
        Plot(
            "training",
            "Means over seeds with their range; symmetric-log axes. On the right the share of all starts that claim "
            "(a) is about.",
            along_training,
        ),
        Plot("starts", "Claim (c): one point a start, the bar is the mean.", starts),
    ),
)
