"""Cooper's theorem: how many eigenvalues of the Hessian are positive at a minimum without loss."""

from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from runner.report.drawing import legend
from runner.report.landscape import REACHED, all_but_few, count_of, endpoints, gaps
from runner.report.statistics import Outcome
from runner.report.study import Claim, Finding, Plot, Runs, Study
from runner.report.style import PALETTE, ink, panels

ACTIVATION = "arch.activation"
TOLERANCES = (1e-8, 1e-12)  # around the 1e-10 of the largest by which eigenvalues are counted


def minima(runs: Runs) -> pd.DataFrame:
    """Those that are exact enough to be judged, where there are more weights than residuals."""
    found = endpoints(runs, ACTIVATION, "arch.base_width")
    return found[found["reached"] & (found["n"] > found["expected"])]


def positive(single: bool) -> Callable[[Runs], Finding]:
    """Whether the theorem's number of eigenvalues is positive, with one output or with several."""

    def judge(runs: Runs) -> Finding:
        found = minima(runs)
        found = found[(found["outputs"] == 1) == single]
        exact = found["hessian_H_positive"] == found["expected"]
        return count_of(found, exact, "have exactly the theorem's number of positive eigenvalues")

    return judge


def flat(runs: Runs) -> Finding:
    found = minima(runs)
    return count_of(found, found["hessian_H_negative"] == 0, "have no negative eigenvalue: all others are zero")


def told_apart(runs: Runs) -> Finding:
    """Whether the count hangs on the tolerance, be it the theorem's or another."""
    found = gaps(runs, minima(runs))
    if found.empty:
        return Finding(Outcome.UNDECIDED, "No run reached a minimum.")
    least, most = (found["sizes"].map(lambda sizes, one=one: int((sizes > one).sum())) for one in TOLERANCES)
    outcome, alike = all_but_few(least == most)
    decades = np.log10(found["last"] / found["next"])
    said = (
        f"The same number of |eigenvalues| above {TOLERANCES[0]:g} and above {TOLERANCES[1]:g} of the largest in a "
        f"share of {alike} of the minima. From the last of the theorem's eigenvalues to the next one there are "
        f"{decades.median():.1f} decades in the median; less than three where the count is another one, or unclear "
        f"({int((decades <= 3).sum())} of {len(found)})."
    )
    return Finding(outcome, said)


def remark(runs: Runs) -> str:
    return f"{not_reached(runs)} {not_generic(runs)}".strip()


def not_reached(runs: Runs) -> str:
    """The runs that are not judged."""
    found = endpoints(runs, ACTIVATION)
    missed = found[~found["reached"]]
    if missed.empty:
        return f"All {len(found)} runs reached a loss of {REACHED:g} or less."
    kinds = ", ".join(f"{count} {name}" for name, count in missed[ACTIVATION].value_counts().items())
    return (
        f"{len(missed)} of {len(found)} runs ({kinds}) stopped above a loss of {REACHED:g} and are not judged: they "
        "are at other critical points, or on the way, and the theorem is about zero loss."
    )


def not_generic(runs: Runs) -> str:
    """What one-hot labels do to the theorem, if they did."""
    found = minima(runs)
    fewer = found[found["hessian_H_positive"] < found["expected"]]
    if fewer.empty:
        return ""
    units = (fewer["arch.base_width"] * fewer["width"]).round()
    left = fewer["samples"] * (fewer["outputs"] - 1) + np.minimum(fewer["samples"], units + 1)
    alike = (fewer["hessian_H_positive"] == left) & (fewer["outputs"] > 1)
    return (
        f"Minima with fewer positive eigenvalues: {len(fewer)}, of which {int(alike.sum())} with exactly "
        "(r - 1) d + k + 1 for k < d - 1 hidden units. The theorem is about generic labels, and one-hot labels are "
        "not: they sum to one, so there are minima where the rows of the head sum to zero and its biases to one; the "
        "sum of the outputs is then constant, its d gradients have no entries but the head's, and at most k + 1 of "
        "them are independent."
    )


def counts(runs: Runs) -> Figure:
    """Positive eigenvalues over residuals: the theorem is the diagonal."""
    figure, axis = plt.subplots(figsize=(4.8, 4.2))
    found = endpoints(runs, ACTIVATION)
    line = np.array([found["expected"].min() * 0.8, found["expected"].max() * 1.25])
    axis.plot(line, line, "--", color=ink(), lw=0.8, label="theorem", zorder=1)
    names = sorted(found[ACTIVATION].unique())
    for place, (name, colour) in enumerate(zip(names, PALETTE, strict=False)):
        rows = found[(found[ACTIVATION] == name) & found["reached"]]
        x = rows["expected"] * (1 + 0.06 * (place - (len(names) - 1) / 2))  # side by side, or one would hide the others
        axis.plot(x, rows["hessian_H_positive"], "osD^v"[place % 5], color=colour, alpha=0.7, label=name)
    missed = found[~found["reached"]]
    if len(missed):
        axis.plot(missed["expected"], missed["hessian_H_positive"], "x", color=ink(), label="loss not zero")
    _log2_axes(axis)
    axis.set_xlabel("independent residuals")
    axis.set_ylabel("positive eigenvalues of $H$")
    axis.set_title("One positive eigenvalue for each residual")
    legend(axis)
    return figure


def _log2_axes(axis: Any) -> None:
    axis.set_xscale("log", base=2)
    axis.set_yscale("log", base=2)
    for one in (axis.xaxis, axis.yaxis):
        one.set_major_formatter(lambda value, _: f"{value:g}")


def spectra(runs: Runs) -> Figure:
    """The |eigenvalues| of one minimum for each number of residuals, in order."""
    found = gaps(runs, minima(runs)).sort_values("n").groupby("expected", as_index=False).last()
    figure, axes = panels(max(len(found), 1), columns=4, width=3.0, height=2.8, sharey=True)
    for axis, row in zip(axes, found.to_dict("records"), strict=False):
        sizes = np.maximum(row["sizes"], 1e-20)
        place, expected = np.arange(1, len(sizes) + 1), row["expected"]
        axis.plot(place[:expected], sizes[:expected], ".", color=PALETTE[0], label="as many as residuals")
        axis.plot(place[expected:], sizes[expected:], ".", color=PALETTE[1], ms=3, label="the others")
        axis.axvline(expected + 0.5, color=ink(), lw=0.8, ls="--")
        axis.set_yscale("log")
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_title(f"{expected} residuals, $n$ = {row['n']}: {row[ACTIVATION]}")
        axis.set_xlabel("rank $i$")
    axes[0].set_ylabel("$|\\lambda_i|\\,/\\,|\\lambda_1|$")
    legend(axes[0])
    return figure


STUDY = Study(
    title="Theorem: the Hessian at a minimum without loss",
    paper="The loss landscape of overparameterized neural networks",
    setting="Networks of three weight layers with biases and smooth activations, r outputs, n weights, on d < n / r "
    "random inputs with random labels, squared loss, Levenberg-Marquardt in float64; the dense Hessian at the end. "
    f"Minima with a loss of at most {REACHED:g} are judged.",
    claims=(
        Claim(
            "one output",
            "At a minimum without loss the Hessian has exactly d positive eigenvalues, one for each sample.",
            "The count is exact at 95 % or more of at least five minima. It does not hold where the share's "
            "95 % interval lies below that. Eigenvalues count as zero up to 1e-10 of the largest.",
            positive(single=True),
        ),
        Claim(
            "several outputs",
            "With r outputs it has exactly r d; here for one-hot labels, which are not generic.",
            "As above, for the minima of networks with several outputs.",
            positive(single=False),
        ),
        Claim(
            "none negative",
            "None of the others is negative: they are zero.",
            "As above, for the count of negative ones.",
            flat,
        ),
        Claim(
            "a gap",
            "The two kinds are apart: the count does not hang on a tolerance.",
            f"As many |eigenvalues| lie above {TOLERANCES[0]:g} as above {TOLERANCES[1]:g} of the largest at 95 % or "
            "more of at least five minima; it does not hold where the share's 95 % interval lies below that.",
            told_apart,
        ),
    ),
    plots=(
        Plot(
            "counts",
            "Each point is a minimum; points are set side by side for the activations. The dashed line is the theorem.",
            counts,
        ),
        Plot("spectra", "All eigenvalues of one minimum for each number of residuals: the step is where the theorem "
             "puts it.", spectra),
    ),
    remark=remark,
)  # fmt: skip
