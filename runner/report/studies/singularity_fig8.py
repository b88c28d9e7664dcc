"""Figure 8 of Sagun, Bottou, LeCun: the loss between two trajectories at matching steps."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from runner.report import spectra
from runner.report.drawing import surface
from runner.report.lines import heights, lines
from runner.report.statistics import above, all_of, below, mean, median
from runner.report.study import Claim, Finding, Plot, Runs, Study
from runner.report.style import PALETTE, ink

FLAT = 0.05  # share of the loss at the start
APART = 0.1  # share of the way from the start
KINDS = {"start": "one start, gradient descent and SGD", "random": "two random starts, SGD"}


def flat(runs: Runs) -> Finding:
    """Left."""
    found = _of(runs, "start")
    barrier = mean(_barriers(found))
    last = _last(found)
    apart = mean(last["distance"] / last["travelled"])
    outcome = all_of([below(barrier, FLAT), above(apart, APART)])
    said = (
        f"Highest barrier on the way, by the loss at the start: {barrier} (the last one by the loss it ends at, "
        f"median: {median(last['barrier'] / last['end'])}); "
        f"distance at the last step, by the way from the start: {apart}."
    )
    return Finding(outcome, said)


def decreases(runs: Runs) -> Finding:
    """Right."""
    found = _of(runs, "random")
    change = mean(_change(found))
    first, last = found[found["step"] == found["step"].min()], _last(found)
    said = (
        f"Mean loss along the line: {first['mean'].mean():.3g} at the first step, {last['mean'].mean():.3g} at the last"
    )
    return Finding(below(change), f"{said}; mean log ratio over {change.n} pairs {change}.")


def less_flat(runs: Runs) -> Finding:
    """Right against left, for the same seeds."""
    one_start = _barriers(_of(runs, "start"))
    between = _barriers(_of(runs, "random"))
    same = {seed: value for (seed, _), value in one_start.items()}
    excess = [value - (same[a] + same[b]) / 2 for (a, b), value in between.items()]
    found = mean(excess)
    said = (
        f"Highest barrier by the loss at the start: {mean(between)} between random starts, {mean(one_start)} from one"
    )
    return Finding(above(found), f"{said}; difference over {found.n} pairs {found}.")


def _of(runs: Runs, kind: str) -> pd.DataFrame:
    found = heights(lines(runs))
    return found[found["kind"] == kind]


def _last(found: pd.DataFrame) -> pd.DataFrame:
    return found[found["step"] == found["step"].max()]


def _barriers(found: pd.DataFrame) -> "pd.Series[float]":
    """By pair: the highest of all steps, by the loss at the start."""
    pairs = found.groupby(["a", "b"])
    start = found[found["step"] == found["step"].min()].groupby(["a", "b"])["end"].first()
    return pairs["barrier"].max() / start


def _change(found: pd.DataFrame) -> "pd.Series[float]":
    """By pair: the log ratio of the mean loss along the line, last step by first."""
    along = found.sort_values("step").groupby(["a", "b"])["mean"]
    return np.log(along.last() / along.first())


def surfaces(runs: Runs) -> Figure:
    """The paper's two surfaces, of the first pair each."""
    table = lines(runs)
    figure = plt.figure(figsize=(10.4, 4.6))
    labels = ("position on the line", "training step", "training loss")
    for place, (kind, title) in enumerate(KINDS.items(), 1):
        rows = table[table["kind"] == kind]
        rows = rows[(rows["a"] == rows["a"].min()) & (rows["b"] == rows["b"].min())]
        losses = rows.pivot(index="step", columns="alpha", values="train_loss")
        steps = losses.index.to_numpy()
        losses.index = pd.Index(np.log10(1 + steps))
        axis = surface(figure, 120 + place, losses, title, labels)
        marks = [0, *(10**power for power in range(len(str(steps.max()))))]
        axis.set_yticks(np.log10(1 + np.array(marks)), [str(mark) for mark in marks])
        axis.set_xticks([0, 0.5, 1], ["A", "½", "B"])
        axis.set_box_aspect(None, zoom=0.9)
        axis.invert_yaxis()  # the end of training, low, in front of the start
        axis.view_init(28, -60)
    return figure


def along_training(runs: Runs) -> Figure:
    """Means over all pairs, with their range: distance, barrier, and the loss along the line and at its ends."""
    found = heights(lines(runs))
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4))
    for (kind, title), colour in zip(KINDS.items(), PALETTE, strict=False):
        rows = found[found["kind"] == kind]
        for axis, column in zip(axes, ("distance", "barrier", "mean"), strict=True):
            band = rows.groupby("step")[column].agg(["mean", "min", "max"])
            axis.plot(1 + band.index, band["mean"], ".-", color=colour, label=title)
            axis.fill_between(1 + band.index, band["min"], band["max"], color=colour, alpha=0.2, lw=0)
        if kind == "random":
            ends = rows.groupby("step")["end"].mean()
            axes[2].plot(1 + ends.index, ends, ":", color=ink(), label="higher end, random starts")
    titles = ("distance $|w_B - w_A|$", "barrier: highest on the way above the ends", "mean training loss on the way")
    for axis, title in zip(axes, titles, strict=True):
        axis.set_xscale("log")
        axis.set_xlabel("1 + training step")
        axis.set_title(title)
    axes[2].set_yscale("log")
    axes[2].legend(fontsize=8)
    return figure


STUDY = Study(
    title="Figure 8: the loss between two trajectories",
    paper=spectra.PAPER,
    setting="784-50-50-10 ReLU networks on 1,000 images of MNIST, rate 0.1; full-batch gradient descent, and SGD with "
    "batches of 100. Loss on the same 1,000 images along the line between two networks after equally many steps: from "
    "one start, gradient descent and SGD (left), and SGD from two random starts with different shuffles (right).",
    claims=(
        Claim(
            "flat from one start",
            "From one start, the line between gradient descent and SGD is flat though they drift apart.",
            "The greatest height of the line above its higher end, over all steps, by the loss at the start, has a "
            f"mean over seeds below {FLAT:g}; the last distance is above {APART:g} of the way from the start.",
            flat,
        ),
        Claim(
            "decreases",
            "Between two random starts, the loss along the line decreases over training.",
            "The log ratio of the mean loss along the line, last step by first, has a mean over disjoint pairs of "
            "seeds below zero (t-interval).",
            decreases,
        ),
        Claim(
            "less flat from two",
            "Between two random starts the line is less flat than from one start.",
            "The greatest height of the line above its higher end, by the loss at the start, is larger for a pair of "
            "seeds than the mean of the two lines that these seeds have by themselves (t-interval over pairs).",
            less_flat,
        ),
    ),
    plots=(
        Plot("surfaces", "The first pair of each kind; positions from -0.25 to 1.25.", surfaces),
        Plot("along_training", "Means over all pairs, with their range.", along_training),
    ),
)
