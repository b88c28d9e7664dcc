"""Cooper's construction: networks that fit their data exactly without having been trained."""

import numpy as np
from matplotlib.figure import Figure

from runner.report.landscape import count_of, endpoints, exact, gaps
from runner.report.statistics import Outcome
from runner.report.study import Claim, Finding, Plot, Runs, Study
from runner.report.style import PALETTE, ink, ordered, panels

FITS, MISSES = 1e-20, 1e-10  # losses; that of the function 0 is about 1/4
DEPTH = "arch.depth"


def fits(runs: Runs) -> Finding:
    """Lemma 3.3: one hidden layer."""
    return _fits(runs, one_hidden=True)


def deeper(runs: Runs) -> Finding:
    """Corollary 3.4: more of them."""
    return _fits(runs, one_hidden=False)


def _fits(runs: Runs, one_hidden: bool) -> Finding:
    found = endpoints(runs, DEPTH)
    losses = found[(found[DEPTH] == 2) == one_hidden]["train_loss"]
    if losses.empty:
        return Finding(Outcome.UNDECIDED, "No run has such a depth.")
    outcome = Outcome.UNDECIDED
    if losses.max() <= FITS:
        outcome = Outcome.HOLDS
    elif not losses.max() <= MISSES:
        outcome = Outcome.FAILS
    said = f"Losses of {len(losses)} networks at step 0: median {losses.median():.1e}, greatest {losses.max():.1e}."
    return Finding(outcome, said)


def counted(runs: Runs) -> Finding:
    """The theorem's count at these minima."""
    found = endpoints(runs, DEPTH)
    found = found[found["train_loss"] <= FITS]
    return count_of(found, exact(found), "have d positive eigenvalues and no negative one")


def losses(runs: Runs) -> Figure:
    """The loss over sizes, and the eigenvalues."""
    found = endpoints(runs, DEPTH)
    spectra = gaps(runs, found[found["train_loss"] <= MISSES])
    figure, axes = panels(2, width=4.6, height=3.4)
    depths = sorted(found[DEPTH].unique())
    for place, (depth, colour) in enumerate(zip(depths, ordered(len(depths)), strict=True)):
        rows = found[found[DEPTH] == depth]
        x = rows["samples"] * (1 + 0.06 * (place - (len(depths) - 1) / 2))
        axes[0].plot(x, rows["train_loss"].clip(lower=1e-34), "o", color=colour, alpha=0.7, label=f"depth {depth:g}")
    axes[0].axhline(0.25, color=ink(), lw=0.8, ls="--")
    axes[0].text(
        0.98, 0.25, "the function 0", transform=axes[0].get_yaxis_transform(), ha="right", va="bottom", fontsize=8
    )
    axes[0].axhline(FITS, color=ink(), lw=0.8, ls=":")
    axes[0].set_title("loss without a step of training")
    axes[0].set_xlabel("samples $d$ = units of the hidden layers")
    axes[0].set_ylim(1e-34, 10)
    for name, colour, label in (("last", PALETTE[0], "$d$-th"), ("next", PALETTE[1], "next")):
        axes[1].plot(spectra["samples"], np.maximum(spectra[name], 1e-20), "o", color=colour, alpha=0.6, label=label)
    axes[1].set_title("$|\\lambda_i|\\,/\\,|\\lambda_1|$ of the Hessian there")
    axes[1].set_xlabel("samples $d$")
    for axis in axes:
        axis.set_yscale("log")
        axis.set_xscale("log", base=2)
        sizes = sorted(found["samples"].unique())
        axis.set_xticks(sizes, [f"{size:g}" for size in sizes], minor=False)
        axis.set_xlim(sizes[0] * 0.8, sizes[-1] * 1.25)
        axis.legend(loc="center")
    return figure


STUDY = Study(
    title="Lemma 3.3 and Corollary 3.4: networks built to fit their data",
    paper="The loss landscape of overparameterized neural networks",
    setting="smooLU networks with biases and as many units a layer as samples, built, not trained: one random "
    "projection of the inputs, its sorted values as biases, a triangular system for the head; deeper ones carry the "
    "projection along one unit a layer. Points of the unit sphere with random labels {0, 1}, float64.",
    claims=(
        Claim(
            "one hidden layer fits",
            "Lemma 3.3: a network with one hidden layer of d units fits any d points exactly.",
            f"The loss at step 0 is at most {FITS:g} for every size and seed (rounding is left); it does not hold "
            f"where one lies above {MISSES:g}.",
            fits,
        ),
        Claim(
            "deeper networks fit",
            "Corollary 3.4: so does a deeper network.",
            "As above, for every greater depth.",
            deeper,
        ),
        Claim(
            "the count there",
            "These minima have d positive eigenvalues, none negative, all others zero.",
            f"So it is at 95 % or more of at least five minima with a loss of at most {FITS:g}; it does not hold where "
            "the share's 95 % interval lies below that. Eigenvalues count as zero up to 1e-13 of the "
            "largest: the construction is ill-conditioned, and the least positive one may be 1e-10 of the largest.",
            counted,
        ),
    ),
    plots=(
        Plot("loss", "Left: dotted is what counts as fitted, on the lower edge are losses of 0. Right: the d-th "
             "largest |eigenvalue| and the next, of every minimum.", losses),
    ),
)  # fmt: skip
