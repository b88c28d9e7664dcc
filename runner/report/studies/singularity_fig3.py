"""Figure 3 of Sagun, Bottou, LeCun: the whole spectrum of the Hessian at the end of training on two blobs."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from runner.report import spectra
from runner.report.study import Claim, Finding, Plot, Runs, Study
from runner.report.style import PALETTE, ink, panels

INIT = "init._target_"
TEXTS = {"sphere": "starts on a sphere", "independent": "starts $\\mathcal{N}(0, 0.1^2)$"}


def two_isolated(runs: Runs) -> Finding:
    return spectra.two_isolated(spectra.summaries(runs, INIT), INIT)


def rest_near_zero(runs: Runs) -> Finding:
    return spectra.rest_near_zero(spectra.summaries(runs, INIT), INIT)


def few_negative(runs: Runs) -> Finding:
    return spectra.few_negative(spectra.summaries(runs, INIT), INIT)


def histograms(runs: Runs) -> Figure:
    """The eigenvalues of all starts, before and after training."""
    tables = {step: spectra.converged(spectra.eigenvalues(runs, INIT, step=step)) for step in ("first", "last")}
    laws = sorted(tables["last"][INIT].unique(), reverse=True)
    figure, axes = panels(2 * len(laws), columns=2, width=4.6, height=2.9, sharey=True)
    for place, axis in enumerate(axes):
        rows = tables[("first", "last")[place % 2]]
        rows = rows[rows[INIT] == laws[place // 2]]
        when = ("before training", "at the end of training")[place % 2]
        starts = rows.groupby(spectra.START).ngroups
        title = f"{when}: {starts} {TEXTS[spectra.setting(INIT, laws[place // 2])]}"
        spectra.histogram(axis, rows, spectra.near_zero_of(rows), PALETTE[0], title)
    axes[1].legend(loc="upper left", handlelength=1)
    return figure


def ordered(runs: Runs) -> Figure:
    """Each start's eigenvalues at the end by their rank: two, a few, and the rest."""
    rows = spectra.converged(spectra.eigenvalues(runs, INIT))
    figure, axis = plt.subplots(figsize=(6.2, 3.6))
    for (law, starts), colour in zip(rows.groupby(INIT), PALETTE, strict=False):
        for number, (_, one) in enumerate(starts.groupby(spectra.START)):
            values = np.sort(one["value"])[::-1]
            label = TEXTS[spectra.setting(INIT, law)] if number == 0 else None
            axis.plot(np.arange(1, len(values) + 1), values, ".", ms=3, color=colour, alpha=0.5, label=label)
    linear = 10 ** np.floor(np.log10(spectra.near_zero_of(rows)))
    axis.set_yscale("symlog", linthresh=linear, linscale=0.7)
    top = rows.groupby(spectra.START)["value"].max().median()
    axis.annotate("two isolated", (2, top), (3.2, top), va="center", arrowprops={"arrowstyle": "->", "color": ink()})
    axis.annotate("a few small\nnegative ones", (rows["index"].max(), -2 * linear), (20, -10 * linear), va="center",
                  arrowprops={"arrowstyle": "->", "color": ink()})  # fmt: skip
    axis.axhline(0, color=ink(), lw=0.6)
    axis.set_xscale("log")
    axis.set_xlabel("rank $i$")
    axis.set_title("eigenvalues $\\lambda_i$ of $H$ at the end of training, every start")
    axis.legend()
    return figure


def remark(runs: Runs) -> str:
    return (
        f"{spectra.outcomes(runs, INIT)} Training stops at |g| < 1e-4, where the loss is of the order of 1e-5: the "
        "size of the eigenvalues is set by this rule, their pattern is not."
    )


STUDY = Study(
    title="Figure 3: the spectrum at the end of training on two blobs",
    paper=spectra.PAPER,
    setting="2-10-10-2 ReLU network with biases (162 parameters), 100 points of two Gaussians at (1, 1) and (-1, -1) "
    "with standard deviation 0.3, cross-entropy, full-batch gradient descent at rate 0.5 to |g| < 1e-4; starts on the "
    "sphere of radius 0.1 √n, as in the paper, and from N(0, 0.1²) (the paper does not give numbers, rate and radius).",
    claims=(
        Claim(
            "two isolated",
            "Two eigenvalues are isolated at the top of the spectrum.",
            spectra.TWO_ISOLATED,
            two_isolated,
        ),
        Claim("rest near zero", "The other eigenvalues are near zero.", spectra.REST_NEAR_ZERO, rest_near_zero),
        Claim("few negative", "There are a few small negative eigenvalues.", spectra.FEW_NEGATIVE, few_negative),
    ),
    plots=(
        Plot("histogram", "All eigenvalues of all converged starts; symmetric-log axis.", histograms),
        Plot("ordered", "The eigenvalues of each start in descending order; symmetric-log axis.", ordered),
    ),
    remark=remark,
)
