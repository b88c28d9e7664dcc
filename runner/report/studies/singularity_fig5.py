"""Figure 5 of Sagun, Bottou, LeCun, and the claim on size: the spectrum at the end of training over network sizes."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from runner.report import spectra
from runner.report.drawing import legend
from runner.report.statistics import Interval, Outcome, above, agreed, all_of, bootstrap_slope, trend, within
from runner.report.study import Claim, Finding, Plot, Runs, Study
from runner.report.style import ink, ordered, panels

FACTOR = 2.0  # by which an eigenvalue may move and still be where it was


def two_isolated(runs: Runs) -> Finding:
    return spectra.two_isolated(spectra.summaries(runs), "width")


def few_negative(runs: Runs) -> Finding:
    return spectra.few_negative(spectra.summaries(runs), "width")


def place_stays(runs: Runs) -> Finding:
    """Of the isolated two, from the smallest network to the largest, and from the next to the smallest."""
    found = spectra.converged(spectra.summaries(runs))
    sizes = sorted(found["n"].unique())
    moved = [_moved(found, size, sizes[-1]) for size in sizes[:-1][:2]]
    medians = found.groupby("n")[["lambda1", "lambda2"]].median()
    each = ", ".join(f"{one.lambda1:.2g} and {one.lambda2:.2g} at n = {one.Index}" for one in medians.itertuples())
    said = "; ".join(text for _, text in moved)
    return Finding(agreed(outcome for outcome, _ in moved), f"The medians move {said} (λ₁ and λ₂: {each}).")


def _moved(found: pd.DataFrame, smaller: int, larger: int) -> tuple[Outcome, str]:
    """Whether the medians are where they were, and how they have moved."""
    first, second = (found[found["n"] == size] for size in (smaller, larger))
    ratios = {number: _ratio(first[name], second[name]) for number, name in (("λ₁", "lambda1"), ("λ₂", "lambda2"))}
    said = " and ".join(f"{number} × {one}" for number, one in ratios.items())
    outcome = all_of(within(one, 1 / FACTOR, FACTOR) for one in ratios.values())
    return outcome, f"from n = {smaller} to n = {larger} parameters to {said}"


def _ratio(first: np.ndarray, second: np.ndarray) -> Interval:
    """Of the medians, second by first."""
    log = bootstrap_slope([first, second], [1, math.e], lambda x: np.abs(np.median(x, axis=-1)))
    return Interval(math.exp(log.value), math.exp(log.low), math.exp(log.high), log.n)


def bulk_sharpens(runs: Runs) -> Finding:
    found = spectra.converged(spectra.summaries(runs))
    slope = trend(found, "near_zero", "n", over="replica", log=False)
    shares = spectra.judged_by(found, "width", "near_zero")
    said = f"Median share of eigenvalues with |λ| ≤ λ₁/100: {spectra.listed(shares)}; change for each doubling of n: "
    return Finding(above(slope), f"{said}{slope}.")


def histograms(runs: Runs) -> Figure:
    """All eigenvalues of all converged starts, a panel for each size."""
    rows = spectra.converged(spectra.eigenvalues(runs))
    zero = spectra.near_zero_of(rows)
    widths = sorted(rows["width"].unique())
    figure, axes = panels(len(widths), columns=2, width=4.6, height=2.8, sharex=True)
    for axis, width, colour in zip(axes, widths, ordered(len(widths)), strict=True):
        one = rows[rows["width"] == width]
        starts = one.groupby(spectra.START).ngroups
        title = f"$k = {width:g}$, $n = {len(one) // starts}$ parameters, {starts} starts"
        spectra.histogram(axis, one, zero, colour, title)
    axes[0].legend(loc="upper left", handlelength=1)
    return figure


def over_size(runs: Runs) -> Figure:
    """The isolated eigenvalues and the next, and the bulk, over the number of parameters; every start is a point."""
    found = spectra.converged(spectra.summaries(runs))
    figure, (top, bulk) = plt.subplots(1, 2, figsize=(9.2, 3.6))
    names = {"lambda1": "$\\lambda_1$", "lambda2": "$\\lambda_2$", "lambda3": "$\\lambda_3$", "lambda4": "$\\lambda_4$"}
    for (name, label), colour, marker in zip(names.items(), ordered(4), "os^v", strict=True):
        medians = found.groupby("n")[name].median()
        top.plot(found["n"], found[name], marker, ms=3, color=colour, alpha=0.35)
        top.plot(medians.index, medians, marker + "-", color=colour, label=label)
    bulk.plot(found["n"], found["near_zero"], "o", ms=3, color=ordered(1)[0], alpha=0.35)
    medians = found.groupby("n")["near_zero"].median()
    bulk.plot(medians.index, medians, "o-", color=ordered(1)[0])
    for axis in (top, bulk):
        axis.set_xscale("log", base=2)
        axis.set_xticks(medians.index, [f"{size:g}" for size in medians.index])
        axis.set_xlabel("parameters $n = k^2 + 6k + 2$")
    top.set_yscale("log")
    low, high = np.log10(found["lambda4"].clip(lower=1e-12).min()), np.log10(found["lambda1"].max())
    top.set_ylim(10 ** np.floor(low), 10 ** np.ceil(high))
    top.yaxis.set_minor_formatter(NullFormatter())
    top.set_title("the four largest eigenvalues at the end")
    bulk.set_ylim(0, 1)
    bulk.set_title("share near zero, $|\\lambda| \\leq \\lambda_1/100$")
    legend(top)
    return figure


def starts(runs: Runs) -> Figure:
    """What became of every start: the loss at its end."""
    found = spectra.ends(runs)
    figure, axis = plt.subplots(figsize=(5.6, 3.2))
    markers = {"converged": "o", "on its way": "^", "plateau": "x"}
    names = {"converged": "$|g| < 10^{-4}$", "on its way": "still on its way", "plateau": "stayed at $\\ln 2$"}
    shift = np.random.default_rng(0).uniform(-0.5, 0.5, len(found))
    for (outcome, marker), colour in zip(markers.items(), ordered(3), strict=True):
        chosen = (found["outcome"] == outcome).to_numpy()
        label = f"{names[outcome]} ({chosen.sum()})"
        axis.plot(found["width"][chosen] + shift[chosen], found["train_loss"][chosen], marker, ms=4, color=colour,
                  label=label)  # fmt: skip
    axis.axhline(math.log(2), color=ink(), lw=0.6)
    axis.set_yscale("log")
    axis.set_xticks(sorted(found["width"].unique()))
    axis.set_xlabel("width $k$")
    axis.set_title("training loss at the end, every start")
    axis.legend()
    return figure


def remark(runs: Runs) -> str:
    return (
        f"{spectra.outcomes(runs, 'width')} Starts that stayed at ln 2 have a dead layer: their spectra do not count. "
        "All others stop at the same |g|, and how large the isolated eigenvalues are depends on that rule."
    )


STUDY = Study(
    title="Figure 5: the spectrum at the end of training over network sizes",
    paper=spectra.PAPER,
    setting=spectra.BLOBS,
    claims=(
        Claim(
            "number stays",
            "Two eigenvalues are isolated at the top, whatever the size of the network.",
            spectra.TWO_ISOLATED,
            two_isolated,
        ),
        Claim(
            "place stays",
            "The isolated eigenvalues stay in their place when the network grows.",
            f"The medians over converged starts of λ₁ and λ₂ at the largest size lie within a factor of {FACTOR:g} of "
            "those at the smallest (bootstrap interval of the ratio), and of those at the next to it; open where only "
            "one is so.",
            place_stays,
        ),
        Claim(
            "bulk sharpens",
            "The bulk at zero becomes sharper when the network grows.",
            "The share of eigenvalues of at most 1 % of the largest rises with the number of parameters n (slope over "
            "log2 n for each replica that converged at two sizes or more, t-interval of their mean).",
            bulk_sharpens,
        ),
        Claim("few negative", "There are a few small negative eigenvalues.", spectra.FEW_NEGATIVE, few_negative),
    ),
    plots=(
        Plot("histograms", "All eigenvalues of all converged starts; symmetric-log axes.", histograms),
        Plot("over_size", "Every converged start is a point, the line joins medians.", over_size),
        Plot("starts", "What became of the starts.", starts),
    ),
    remark=remark,
)
