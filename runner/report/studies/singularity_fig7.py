"""Figure 7 of Sagun, Bottou, LeCun: the top eigenvalues at the end of training on harder data."""

from itertools import pairwise
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from runner.report import spectra
from runner.report.drawing import legend
from runner.report.statistics import Interval, Outcome, above, all_of, median, trend
from runner.report.study import Claim, Finding, Plot, Runs, Study
from runner.report.style import PALETTE

STD = "dataset.std"
TOP = {"lambda1": "$\\lambda_1$", "lambda2": "$\\lambda_2$"}
TEXTS = ("λ₁", "λ₂")
MOST = 0.9  # of the starts


def grow(runs: Runs) -> Finding:
    """From the least standard deviation to the largest, and to the largest up to which training ends at minima."""
    found = left_the_plateau(runs)
    slopes = [trend(found, name, STD, over="replica") for name in TOP]
    outcome, said = all_of(above(one) for one in slopes), f"Log-log slope over σ: {_each(slopes)}"
    ended = (found["outcome"] == "converged").groupby(found[STD]).mean()
    minima = found[found[STD].isin(ended[ended >= MOST].index)]
    if 1 < minima[STD].nunique() < len(ended):
        among = [trend(minima, name, STD, over="replica") for name in TOP]
        said += (
            f"; over those up to σ = {minima[STD].max():g}, where {MOST:.0%} of the starts converged: {_each(among)}"
        )
        if all_of(above(one) for one in among) != outcome:
            outcome = Outcome.UNDECIDED
    return Finding(outcome, f"{said}.")


def _each(slopes: list[Interval]) -> str:
    return " and ".join(f"{one} of {text}" for one, text in zip(slopes, TEXTS, strict=True))


def beyond(runs: Runs) -> Finding:
    """At each step from one standard deviation to the next."""
    outcomes, said = [], []
    for (low, easier), (high, harder) in pairwise(left_the_plateau(runs).groupby(STD)):
        for name, text in zip(TOP, TEXTS, strict=True):
            bar, middle = float(easier[name].quantile(0.95)), median(harder[name])
            outcomes.append(above(middle, bar))
            said.append(f"{text} from {bar:.3g} (95 % quantile at σ = {low:g}) to {middle} (median at σ = {high:g})")
    return Finding(all_of(outcomes), f"{'; '.join(said)}.")


def left_the_plateau(runs: Runs) -> pd.DataFrame:
    """Converged or not: overlapping blobs never let the gradient become small."""
    found = spectra.summaries(runs, STD)
    return found[found["outcome"] != "plateau"]


def over_std(runs: Runs) -> Figure:
    """Every start a point, over the standard deviation; and the loss at which training ended."""
    found = left_the_plateau(runs)
    figure, (top, loss) = plt.subplots(1, 2, figsize=(9.2, 3.6))
    generator = np.random.default_rng(0)
    for (name, label), colour, marker in zip(TOP.items(), PALETTE, "os", strict=False):
        scattered(top, found, name, generator, marker=marker, color=colour, label=label)
    scattered(loss, found, "train_loss", generator, marker="o", color=PALETTE[2])
    for axis in (top, loss):
        axis.set_yscale("log")
        axis.set_xlabel("standard deviation $\\sigma$ of the blobs")
        axis.set_xticks(sorted(found[STD].unique()))
    top.set_title("largest eigenvalues at the end: starts, and medians")
    loss.set_title("training loss at the end")
    legend(top)
    return figure


def scattered(
    axis: Any, found: pd.DataFrame, name: str, generator: np.random.Generator, label: str | None = None, **point: Any
) -> None:
    """Points side by side where they would hide each other, and the line of their medians."""
    shift = generator.uniform(-0.015, 0.015, len(found))
    axis.plot(found[STD] + shift, found[name], ls="", ms=3, alpha=0.35, **point)
    medians = found.groupby(STD)[name].median()
    axis.plot(medians.index, medians, lw=1.4, ms=5, label=label, **point)


def remark(runs: Runs) -> str:
    return (
        f"{spectra.outcomes(runs, STD)} Where the blobs are far apart, all starts stop at |g| = 1e-4 with margins of "
        "the same size, and the eigenvalues tell this rule more than the data; they grow once single points lie near "
        "the border between the classes."
    )


STUDY = Study(
    title="Figure 7: the top eigenvalues on harder data",
    paper=spectra.PAPER,
    setting="2-10-10-2 ReLU network with biases, 100 points of two Gaussians at (1, 1) and (-1, -1) with standard "
    "deviation σ, cross-entropy, full-batch gradient descent at rate 0.5 from starts on the sphere of radius 0.1 √n, "
    "to |g| < 1e-4 or the last step.",
    claims=(
        Claim(
            "grow",
            "The top eigenvalues grow with the standard deviation of the blobs.",
            "The log-log slopes of λ₁ and of λ₂ over σ, fitted for each replica, have means above zero (t-interval), "
            f"all starts taken, converged or not; open if over those σ alone at which {MOST:.0%} of them converged the "
            "same slopes say something else.",
            grow,
        ),
        Claim(
            "beyond the fluctuation",
            "They grow by more than they fluctuate over starts.",
            "At each step of σ the median of λ₁, and that of λ₂, lie above the 95 % quantile over starts at the σ "
            "before; does not hold if one of them lies below it with its whole interval.",
            beyond,
        ),
    ),
    plots=(Plot("over_std", "Each start is a point.", over_std),),
    remark=remark,
)
