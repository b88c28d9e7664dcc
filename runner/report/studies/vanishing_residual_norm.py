"""What residual connections and batch norm do to gradient and curvature of random networks over depth."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from runner.report.drawing import legend
from runner.report.statistics import Interval, Outcome, above, all_of, below, within
from runner.report.study import Claim, Finding, Plot, Runs, Study
from runner.report.style import PALETTE, ink, ordered, panels
from runner.report.vanishing import FORMULAS, SIZES, cells, change, each, starts

FACTOR = 2.0
KINDS = {
    (False, "none"): "plain",
    (True, "none"): "residual",
    (False, "batch"): "batch norm",
    (True, "batch"): "residual, batch norm",
}


def kinds(runs: Runs) -> dict[str, pd.DataFrame]:
    """The starts by the kind of network."""
    rows = starts(runs, "arch.residual", "arch.norm")
    keys = zip(rows["arch.residual"].astype(str).str.lower() == "true", rows["arch.norm"], strict=True)
    named = rows.assign(kind=[KINDS[bool(residual), norm] for residual, norm in keys])
    return {name: named[named["kind"] == name] for name in KINDS.values() if (named["kind"] == name).any()}


def vanishes(runs: Runs) -> Finding:
    return _changes(runs, "plain", lambda one: below(one, -np.log(FACTOR)))


def stays(runs: Runs) -> Finding:
    return _changes(runs, "residual", lambda one: within(one, -np.log(FACTOR), np.log(FACTOR)))


def explodes(runs: Runs) -> Finding:
    return _changes(runs, "batch norm", lambda one: above(one, np.log(FACTOR)))


def _changes(runs: Runs, kind: str, rule: Callable[[Interval], Outcome]) -> Finding:
    rows = kinds(runs)[kind]
    shallow, middle, deep = rows["depth"].min(), rows["depth"].max() // 2, rows["depth"].max()
    found = {size: change(rows, size, middle, deep) for size in SIZES}
    whole = ", ".join(f"{change(rows, size, shallow, deep)}" for size in SIZES)
    dead, alive = rows[rows["depth"] == deep]["dead"].mean(), found[SIZES[0]].n
    return Finding(
        all_of(rule(one) for one in found.values()),
        f"ln of the change from depth {middle} to {deep}, mean over {alive} starts alive at both: {each(found)} "
        f"(from depth {shallow}: {whole}; {dead:.0%} of the deepest dead).",
    )


def over_depth(runs: Runs) -> Figure:
    """Typical gradient and curvature of each kind, with the half of the starts that lies around it."""
    figure, axes = panels(len(SIZES), width=3.9, height=3.4)
    for (name, rows), colour, marker in zip(kinds(runs).items(), PALETTE, "osD^", strict=False):
        table = cells(rows, "depth")
        for axis, size in zip(axes, SIZES, strict=True):
            shown = table[table[f"{size}_median"] > 0]
            axis.plot(shown["depth"], shown[f"{size}_median"], f"{marker}-", color=colour, label=name)
            around = rows[rows[size] > 0].groupby("depth")[size].quantile([0.25, 0.75]).unstack()
            axis.fill_between(around.index, around[0.25], around[0.75], color=colour, alpha=0.2, lw=0)
    for axis, size in zip(axes, SIZES, strict=True):
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_yscale("log")
        axis.set_xlabel("depth (weight layers)")
        axis.set_title(f"{FORMULAS[size]} at the start")
    legend(axes[0])
    return figure


def along_layers(runs: Runs) -> Figure:
    """The gradient of each layer, at the greatest depth: where it vanishes or explodes on its way back."""
    layers = runs.table("layer_norms", "arch.depth", "arch.residual", "arch.norm")
    layers = layers[(layers["step"] == 0) & layers["gradient"].gt(0)]
    is_residual = layers["arch.residual"].astype(str).str.lower() == "true"
    found = kinds(runs)
    names = {name: key for key, name in KINDS.items() if name in found}
    figure, axes = panels(len(names), columns=4, width=3.0, height=3.0, sharey=True)
    depths = sorted(layers["arch.depth"].unique())
    for axis, (name, (residual, norm)) in zip(axes, names.items(), strict=True):
        one = layers[(is_residual == residual) & (layers["arch.norm"] == norm) & ~_normalisation(layers)]
        for depth, colour in zip(depths, ordered(len(depths)), strict=True):
            rows = one[one["arch.depth"] == depth]
            typical = np.log10(rows["gradient"]).groupby(rows["depth"]).median()
            place = np.arange(len(typical)) / max(len(typical) - 1, 1)
            axis.plot(place, 10**typical, "-", color=colour, label=f"depth {depth:g}")
        axis.set_yscale("log")
        axis.set_title(name)
        axis.set_xlabel("layer (0: first, 1: head)")
        axis.axhline(1, color=ink(), lw=0.6, ls="--")
    axes[0].set_ylabel("median of layers' $|\\partial L/\\partial w_l|$")
    legend(axes[0])
    return figure


def _normalisation(layers: pd.DataFrame) -> pd.Series:
    """The rows of batch norm's own parameters: in a hidden layer they come second, in a block's branch also last."""
    return (layers["arch.norm"] != "none") & layers["layer"].str.contains(r"\.0\.1$|^body\.\d+\.1$|branch\.2$")


STUDY = Study(
    title="Residual connections and batch norm over depth",
    paper="Vanishing Curvature and the Power of Adaptive Methods in Randomly Initialized Deep Networks",
    setting="ReLU networks of 8 units under He, without biases, at their start: plain, with blocks h + W2 phi(W1 h) / "
    "sqrt(blocks), with batch norm, with both; points of the unit sphere with random labels, squared loss, float64.",
    claims=(
        Claim(
            "plain vanishes",
            "Gradient and Hessian of plain networks vanish with depth.",
            f"At the last doubling of the depth |g|, max|eigenvalue| and |H|_F fall by more than a factor of "
            f"{FACTOR:g} (mean log over starts, living networks). It does not hold where one surely falls by less.",
            vanishes,
        ),
        Claim(
            "residual stays",
            "With residual connections scaled by 1 / sqrt(blocks) they stay flat over depth.",
            f"At the last doubling of the depth they change by less than a factor of {FACTOR:g} up or down. (A network "
            "of depth 4 has a single block; what approaches a limit with depth is flat.)",
            stays,
        ),
        Claim(
            "batch norm explodes",
            "With batch norm the gradient explodes with depth, and the Hessian with it.",
            f"At the last doubling of the depth they grow by more than a factor of {FACTOR:g}.",
            explodes,
        ),
    ),
    plots=(
        Plot("depth", "Medians over starts with the middle half of the living ones.", over_depth),
        Plot("layers", "The gradient of each weight matrix along the network, medians over starts.", along_layers),
    ),
)
