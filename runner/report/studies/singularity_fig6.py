"""Figure 6 of Sagun, Bottou, LeCun: the fluctuation of the top eigenvalues over the starts of one network."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from runner.report import spectra
from runner.report.drawing import legend
from runner.report.statistics import above, below, bootstrap
from runner.report.study import Claim, Finding, Plot, Runs, Study
from runner.report.style import PALETTE

NARROW = 0.2  # standard deviation by mean
TOP = {"lambda1": "$\\lambda_1$", "lambda2": "$\\lambda_2$", "lambda3": "$\\lambda_3$"}


def narrow(runs: Runs) -> Finding:
    values = spectra.converged(spectra.summaries(runs))["lambda1"].to_numpy()
    found = bootstrap(values, lambda x: float(x.std(ddof=1) / x.mean()))
    said = (
        f"λ₁ = {values.mean():.3g} on average over {len(values)} converged starts, standard deviation by mean {found}."
    )
    return Finding(below(found, NARROW), said)


def two_isolated(runs: Runs) -> Finding:
    return spectra.two_isolated(spectra.summaries(runs), "width")


def apart(runs: Runs) -> Finding:
    """The isolated eigenvalues' fluctuation does not reach the bulk."""
    rows = spectra.converged(spectra.summaries(runs))[["lambda2", "lambda3"]].to_numpy()
    found = bootstrap(rows, lambda x: float(np.quantile(x[:, 0], 0.01) / np.quantile(x[:, 1], 0.99)))
    return Finding(above(found, 1.0), f"1 % quantile of λ₂ over the starts by 99 % quantile of λ₃: {found}.")


def distributions(runs: Runs) -> Figure:
    found = spectra.converged(spectra.summaries(runs))
    figure, (together, alone) = plt.subplots(1, 2, figsize=(9.2, 3.4))
    power = int(np.floor(np.log10(found["lambda1"].median())))
    values = found[list(TOP)] / 10.0**power
    edges = np.geomspace(values.to_numpy().min(), values.to_numpy().max(), 80)
    for (name, label), colour in zip(TOP.items(), PALETTE, strict=False):
        together.hist(values[name], bins=edges.tolist(), color=colour, alpha=0.8, label=label)
    together.set_xscale("log")
    together.xaxis.set_minor_locator(NullLocator())
    ticks = [one for one in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if edges[0] <= one <= edges[-1]]
    together.set_xticks(ticks, [f"{one:g}" for one in ticks])
    together.set_yscale("log")
    together.set_title(f"the three largest eigenvalues of {len(found):,} starts")
    together.legend(loc="upper center")
    alone.hist(values["lambda1"], bins=60, color=PALETTE[0])
    alone.axvline(values["lambda1"].median(), color=PALETTE[1], label="median")
    spread = found["lambda1"].std() / found["lambda1"].mean()
    alone.set_title(f"$\\lambda_1$ alone: standard deviation / mean = {spread:.2g}")
    legend(alone)
    for axis in (together, alone):
        axis.set_xlabel(f"eigenvalue at the end of training, $10^{{{power}}}$")
        axis.set_ylabel("starts")
    return figure


def remark(runs: Runs) -> str:
    return (
        f"{spectra.outcomes(runs, 'width')} Only converged starts are counted: those that are slow to converge need "
        "not be like the others, and the intervals do not cover what their absence does."
    )


STUDY = Study(
    title="Figure 6: the top eigenvalues over thousands of starts",
    paper=spectra.PAPER,
    setting="One system, a 2-10-10-2 ReLU network with biases on 100 points of two Gaussians at (1, 1) and (-1, -1) "
    "with standard deviation 0.3, trained by full-batch gradient descent at rate 0.5 from many starts on the sphere of "
    "radius 0.1 √n to |g| < 1e-4; side by side, with all eigenvalues of each Hessian.",
    claims=(
        Claim(
            "narrow",
            "The top eigenvalue fluctuates little from start to start.",
            f"Its standard deviation over converged starts, by its mean, lies below {NARROW:g} (bootstrap interval). "
            "The paper shows the histogram and gives no bound: this one is ours.",
            narrow,
        ),
        Claim(
            "two isolated",
            "Two eigenvalues are isolated at the top of the spectrum, from start to start.",
            spectra.TWO_ISOLATED,
            two_isolated,
        ),
        Claim(
            "apart from the bulk",
            "The fluctuation of the isolated eigenvalues does not reach the bulk.",
            "The 1 % quantile of the second eigenvalue over converged starts lies above the 99 % quantile of the third "
            "(bootstrap interval of their ratio above 1).",
            apart,
        ),
    ),
    plots=(Plot("distributions", "Each start is counted once for each eigenvalue.", distributions),),
    remark=remark,
)
