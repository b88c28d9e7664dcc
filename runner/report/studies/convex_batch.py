"""What the main paper says of batches: the residual part, and how orthogonal gradients are, over batch sizes."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from runner.report.drawing import legend
from runner.report.statistics import Interval, above, agreed, all_of, below, mean, rank_correlation, trend, within
from runner.report.study import Claim, Finding, Plot, Runs, Study
from runner.report.style import PALETTE, ink, ordered, panels

NEAR = 0.1  # |cosine| up to which two vectors count as nearly orthogonal (84 degrees)
ARM = ["depth", "n"]
KINDS = {
    "cross_iii": "$i=j=k$",
    "cross_iij": "$j$ = one of $i,k$",
    "cross_iji": "$i=k\\neq j$",
    "cross_ijk": "all different",
}


def draws(runs: Runs) -> pd.DataFrame:
    """A row for each network and batch size, all at the start."""
    rows = runs.table("metrics", "arch.depth", "arch.base_width", "batch_size")
    rows = rows[rows["step"] == 0]
    fixed = pd.DataFrame({
        "n": (rows["width"] * rows["arch.base_width"]).round(),
        "depth": rows["arch.depth"],
        "batch": rows["batch_size"],
        "replica": rows["replica"] + rows["seed"],
        "residual": rows["split_gHrg"].abs() / rows["grad_norm"] ** 2,
        "between": rows["gradients_cosine"],
        "angle": rows["products_cos_H_r"].abs(),
        "ratio": rows["products_norm_H_r"] / rows["products_norm_G"],
    })  # fmt: skip
    crosses = rows[[f"output_curvature_{kind}" for kind in KINDS]].set_axis(list(KINDS), axis=1)
    return fixed.join(crosses)


def arms(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    for (depth, n), rows in frame.groupby(ARM):
        yield f"{depth:g} layers of {n:g}", rows


def over_arms(frame: pd.DataFrame, find: Callable[[pd.DataFrame], Interval]) -> tuple[list[Interval], str]:
    found = {arm: find(rows) for arm, rows in arms(frame)}
    return list(found.values()), "; ".join(f"{arm}: {one}" for arm, one in found.items())


def largest(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame["batch"] == frame["batch"].max()]


def residual_falls(runs: Runs) -> Finding:
    frame = draws(runs)
    larger = frame[frame["batch"] > frame["batch"].min()]
    found, said = over_arms(frame, lambda rows: trend(rows, "residual", "batch", over="replica"))
    without, rest = over_arms(larger, lambda rows: trend(rows, "residual", "batch", over="replica"))
    text = f"Log-log slope of |g'H_r g| / g'g over the batch size: {said}; without the smallest batch: {rest}."
    return Finding(agreed(all_of(map(below, slopes)) for slopes in (found, without)), text)


def samples_orthogonal(runs: Runs) -> Finding:
    found, said = over_arms(largest(draws(runs)), lambda rows: mean(rows["between"]))
    return Finding(all_of(within(one, -NEAR, NEAR) for one in found), f"Mean cosine between gradients: {said}.")


def goes_together(runs: Runs) -> Finding:
    """Ranks within a cell of one network and batch size, so that only differences between draws count."""
    frame = draws(runs)
    frame["cosine"] = frame["between"].abs()
    found = rank_correlation(frame, "cosine", "residual", [*ARM, "batch"], over="replica")
    return Finding(above(found), f"Rank correlation within settings: {found}, {found.n} networks in each.")


def gradient_orthogonal(runs: Runs) -> Finding:
    found, said = over_arms(largest(draws(runs)), lambda rows: mean(rows["angle"]))
    return Finding(all_of(below(one, NEAR) for one in found), f"Mean |cosine| of g and H_r g: {said}.")


def residual_smaller(runs: Runs) -> Finding:
    found, said = over_arms(largest(draws(runs)), lambda rows: _geometric(rows["ratio"]))
    return Finding(all_of(below(one, 1.0) for one in found), f"|H_r g| / |G g|, geometric mean: {said}.")


def _geometric(values: pd.Series) -> Interval:
    one = mean(np.log(values))
    return Interval(float(np.exp(one.value)), float(np.exp(one.low)), float(np.exp(one.high)), one.n)


def cross_falls(runs: Runs) -> Finding:
    """Each network's cross terms do not depend on the batch size: those of the largest batch."""
    frame = largest(draws(runs))
    frame = frame.assign(share=frame["cross_ijk"] / frame["cross_iii"])
    groups = {f"{depth:g} layers": rows for depth, rows in frame.groupby("depth")}
    slopes = {name: trend(rows, "share", "n", over="replica") for name, rows in groups.items()}
    sizes = {name: _geometric(rows[rows["n"] == rows["n"].max()]["share"]) for name, rows in groups.items()}
    said = "; ".join(f"{name}: slope {slopes[name]}, at the greatest width {sizes[name]}" for name in groups)
    return Finding(
        all_of([below(one) for one in slopes.values()] + [below(one, 1.0) for one in sizes.values()]),
        f"Terms of three samples over those of one, root mean squares: {said}.",
    )


def over_batches(runs: Runs) -> Figure:
    """Each number over the batch size: medians over networks, with the middle half of them."""
    frame = draws(runs)
    depths = sorted(frame["depth"].unique())
    shown = {
        "residual": "$|g^{\\top}H_r g|\\,/\\,g^{\\top}g$",
        "angle": "$|\\cos(g, H_r g)|$",
        "ratio": "$|H_r g|\\,/\\,|G g|$",
        "between": "mean $\\cos(g_i, g_j)$",
    }
    figure, axes = panels(4 * len(depths), columns=4, width=3.1, height=2.8, sharex=True)
    for number, axis in enumerate(axes[4:]):  # one range for all depths
        axis.sharey(axes[number % 4])
    for number, axis in enumerate(axes):
        value, depth = list(shown)[number % 4], depths[number // 4]
        _medians(axis, frame[frame["depth"] == depth], value)
        axis.set_xscale("log", base=2)
        axis.set_xticks(frame["batch"].unique(), [f"{one:g}" for one in frame["batch"].unique()])
        if value == "between":
            axis.axhline(0, color=ink(), lw=0.8)
        else:
            axis.set_yscale("log")
        axis.set_title(f"{shown[value]}, {depth:g} layers")
        if number >= len(axes) - 4:
            axis.set_xlabel("batch size")
    legend(axes[0])
    return figure


def _medians(axis: Any, frame: pd.DataFrame, value: str) -> None:
    groups = list(frame.groupby("n"))
    for (n, rows), colour in zip(groups, ordered(len(groups)), strict=True):
        table = rows.groupby("batch")[value].quantile([0.25, 0.5, 0.75]).unstack()
        axis.plot(table.index, table[0.5], "o-", ms=4, color=colour, label=f"n = {n:g}")
        axis.fill_between(table.index, table[0.25], table[0.75], color=colour, alpha=0.2, lw=0)


def cross_terms(runs: Runs) -> Figure:
    """Root mean squares of the four kinds of terms over the width."""
    frame = largest(draws(runs))
    groups = list(frame.groupby("depth"))
    figure, axes = panels(len(groups), columns=len(groups), width=4.2, height=4.0)
    for axis, (depth, rows) in zip(axes, groups, strict=True):
        for (kind, label), colour, marker in zip(KINDS.items(), PALETTE, "osD^", strict=False):
            table = np.exp(np.log(rows.set_index("n")[kind]).groupby("n").mean())
            slope = trend(rows, kind, "n", over="replica")
            axis.plot(table.index, table, f"{marker}-", ms=4, color=colour, label=f"{label}: slope {slope}")
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_xticks(table.index, [f"{one:g}" for one in table.index])
        axis.set_xlabel("width $n$")
        axis.set_title(f"$\\nabla f_i^{{\\top}}(\\nabla^2 f_j)\\nabla f_k$, {depth:g} layers")
        axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.18))
    axes[0].set_ylabel("root mean square")
    return figure


STUDY = Study(
    title="Batches: the residual part and the orthogonality of gradients",
    paper="On the Convex Behavior of Deep Neural Networks in Relation to the Layers' Width",
    setting="ReLU networks of width n on Gaussian inputs of unit norm and dimension n, with random labels {0, 1} and "
    "squared loss, as in Figure 2, at the start: many networks, each with batches of several sizes, on one draw of "
    "data for each width. Cosines between samples are over at most 64 of a batch, cross terms over six samples.",
    claims=(
        Claim(
            "batch size",
            "g'H_r g is smaller in a batch: |g'H_r g| / g'g falls with the batch size.",
            "Its log-log slope over the batch size, fitted for each network, has a mean below zero in each setting, "
            "with the smallest batch and without it (open where these differ): all networks of a setting share the "
            "data, and so that one batch of few samples.",
            residual_falls,
        ),
        Claim(
            "samples",
            "(premise) The gradients of single samples are nearly orthogonal.",
            f"The mean cosine between them, a mean over networks at the largest batch, lies within +-{NEAR:g} in each "
            "setting.",
            samples_orthogonal,
        ),
        Claim(
            "together",
            "g'H_r g is small where the gradients of single samples are nearly orthogonal.",
            "The correlation of the ranks of |mean cosine| and of |g'H_r g| / g'g, taken within each setting and batch "
            "size, is positive, with its bootstrap interval over networks.",
            goes_together,
        ),
        Claim(
            "gradient",
            "The gradient is nearly orthogonal to H_r (abstract).",
            f"The mean over networks of |cos(g, H_r g)| at the largest batch lies below {NEAR:g} in each setting.",
            gradient_orthogonal,
        ),
        Claim(
            "product",
            "H_r acts less on the gradient than G does.",
            "The geometric mean over networks of |H_r g| / |G g| at the largest batch lies below 1 in each setting.",
            residual_smaller,
        ),
        Claim(
            "cross terms",
            "The terms grad f_i' (d2 f_j) grad f_k between samples are smaller than a sample's own, and more so in "
            "wider networks.",
            "The root mean square over three different samples, divided by that of one, has a log-log slope over the "
            "width below zero, and lies below 1 at the greatest, at each depth (intervals over networks).",
            cross_falls,
        ),
    ),
    plots=(
        Plot("batches", "Medians over networks with the middle half of them; a row for each depth.", over_batches),
        Plot("cross", "Geometric means over networks, with the log-log slopes over the width.", cross_terms),
    ),
)
