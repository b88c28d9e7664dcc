"""Theorem 1 of the main paper in data: Q = grad f' (d2 f) grad f of deep linear networks' outputs, at the start."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from runner.report.drawing import scaling
from runner.report.statistics import (
    LEVEL,
    Interval,
    Outcome,
    all_of,
    below,
    bootstrap_slope,
    mean,
    variance,
    within,
)
from runner.report.study import Finding, Runs
from runner.report.style import PALETTE, ink, panels

ARM = ("fan", "law", "depth")  # what a slope over widths is fitted for
STEEP = -0.75  # O(1/n): the slope is -1 or below, with a quarter to spare for finite widths
ZERO = 0.25  # a mean counts as zero within so many standard deviations
CONSTANT = 0.1  # a slope counts as flat within +- this
ZERO_RULE = (
    f"The mean over networks, in standard deviations, in each setting and width, with intervals that hold together "
    f"(Bonferroni): none excludes 0 and all lie within +-{ZERO:g}. One that excludes 0 is enough against it."
)
SLOPE_RULE = (
    f"The log-log slope of {{}} over n lies below {STEEP:g} in each setting, with its bootstrap interval over networks "
    f"(the claim's slope is -1, in the limit of wide networks)."
)
NORM_RULE = (
    f"In each setting the log-log slope over n of the median of |grad f| lies within +-{CONSTANT:g}, and that of its "
    f"standard deviation over its mean lies below -0.25, with bootstrap intervals."
)
# Var Q of wide networks is (4/d) (a r^2 + b r + c), r = n/d, weights of variance 1/fan_in; a, b, c by the number of
# layers. Q = 2 sum_{l>m} |b_l|^2 |h_{m-1}|^2 b_l' W_l P P' P h_m with P = W_{l-1} ... W_{m+1}, h the activations, b the
# backward signals; their norms tend to constants, and the covariances of the terms are traces of products of free
# Marchenko-Pastur matrices: with moments 1, 2, 5 of one, 1, 3, 12 of a product of two, and tr(A^2 B A B) = 7. Exact for
# two layers at any width.
WIDE = {2: (0, 0, 1), 4: (17, 50, 42)}
SYMBOLS = {"Q": "Q", "gHrg": "g^{\\top}H_r g"}


def draws(runs: Runs) -> pd.DataFrame:
    """A row for each network: its width n, the arm it belongs to, and what was measured."""
    keys = ("arch.depth", "arch.base_width", "init.law", "init.fan", "dataset.dim")
    rows = runs.table("metrics", *keys)
    rows = rows[rows["step"] == 0]
    return pd.DataFrame({
        "n": (rows["width"] * rows["arch.base_width"]).round(),
        "dim": rows["dataset.dim"],
        "depth": rows["arch.depth"],
        "law": rows["init.law"],
        "fan": rows["init.fan"],
        "Q": rows["output_curvature_Q"],
        "along": rows["output_curvature_Q_over_s"],
        "length": np.sqrt(rows["output_curvature_s"]),
        "gHrg": rows["split_gHrg"],
    })  # fmt: skip


def wide(depth: int, n: np.ndarray, dim: np.ndarray) -> np.ndarray | None:
    """Var Q in the limit of wide networks, where it is known."""
    return 4 / dim * np.polyval(WIDE[depth], n / dim) if depth in WIDE else None


def arms(frame: pd.DataFrame, name: Callable[[dict[str, Any]], str]) -> Iterator[tuple[str, pd.DataFrame]]:
    for values, rows in frame.groupby(list(ARM)):
        yield name(dict(zip(ARM, values, strict=True))), rows


def by_width(rows: pd.DataFrame, value: str) -> tuple[list[float], list[pd.Series]]:
    groups = list(rows.groupby("n")[value])
    return [float(n) for n, _ in groups], [values for _, values in groups]


def variance_slope(rows: pd.DataFrame, value: str) -> Interval:
    """The log-log slope of Var `value` over the width, with its bootstrap interval over networks."""
    n, groups = by_width(rows, value)
    return bootstrap_slope(groups, n, lambda x: x.var(axis=-1, ddof=1))


def falls(frame: pd.DataFrame, value: str, name: Callable[[dict[str, Any]], str]) -> Finding:
    """Var `value` = O(1/n): the slope lies below STEEP in every arm."""
    found = {arm: variance_slope(rows, value) for arm, rows in arms(frame, name)}
    said = "; ".join(f"{arm}: {slope}" for arm, slope in found.items())
    outcome = all_of(below(slope, STEEP) for slope in found.values())
    return Finding(outcome, f"Slope of log Var({'Q/s' if value == 'along' else value}) over log n: {said}.")


def standardised(values: Sequence[float] | pd.Series, level: float) -> Interval:
    """The mean in units of the standard deviation."""
    x = np.asarray(values, float)
    return mean(x / x.std(ddof=1), level) if len(x) > 1 else mean(x, level)


def means(frame: pd.DataFrame, value: str, over: Sequence[str]) -> pd.Series:
    """The standardised mean in each cell, each at the level at which all of them hold together (Bonferroni)."""
    cells = frame.groupby(list(over))[value]
    level = 1 - (1 - LEVEL) / max(len(cells), 1)
    return pd.Series({cell: standardised(values, level) for cell, values in cells})


def zero_mean(frame: pd.DataFrame, value: str, over: Sequence[str] = (*ARM, "n")) -> Finding:
    """E `value` = 0: fails where one interval lies off zero, holds where all are within ZERO of it too."""
    found = means(frame, value, over)
    off = sum(one.low > 0 or one.high < 0 for one in found)
    size = max((abs(one.value) for one in found), default=math.nan)
    told = f"{off} of {len(found)} intervals exclude 0; the largest |mean| is {size:.2g} standard deviations"
    sides = f"; {sum(one.value > 0 for one in found)} means are positive"
    if off:
        return Finding(Outcome.FAILS, told + sides + ".")
    near = all(one.low >= -ZERO and one.high <= ZERO for one in found)
    return Finding(Outcome.HOLDS if near and len(found) else Outcome.UNDECIDED, told + sides + ".")


def norm_preserved(frame: pd.DataFrame, name: Callable[[dict[str, Any]], str]) -> Finding:
    """|grad f| tends to a constant: its median is flat over the width and its relative spread falls."""
    outcomes, said = [], []
    for arm, rows in arms(frame, name):
        n, groups = by_width(rows, "length")
        level = bootstrap_slope(groups, n, lambda x: np.median(x, axis=-1))
        spread = bootstrap_slope(groups, n, lambda x: x.std(axis=-1, ddof=1) / x.mean(axis=-1))
        outcomes += [within(level, -CONSTANT, CONSTANT), below(spread, -0.25)]
        widest = groups[-1]
        said.append(f"{arm}: {widest.mean():.3g} +- {widest.std():.2g} at n = {n[-1]:g} (slopes {level}, {spread})")
    return Finding(
        all_of(outcomes), f"|grad f|, with the slopes of its median and of its relative spread: {'; '.join(said)}."
    )


def variances(frame: pd.DataFrame, colours: str, labels: dict[str, str]) -> Figure:
    """Var Q, Var(Q/s) and |grad f| over the width: a column of panels for each depth, a colour for each value of
    `colours`."""
    depths = sorted(frame["depth"].unique())
    figure, axes = panels(3 * len(depths), columns=len(depths), width=4.4, height=2.8, sharex=True)
    for column, depth in enumerate(depths):
        top, middle, bottom = axes[column :: len(depths)]
        same = frame[frame["depth"] == depth]
        for (name, rows), colour in zip(same.groupby(colours), PALETTE, strict=False):
            _scaled(top, rows, "Q", labels[name], colour)
            _scaled(middle, rows, "along", labels[name], colour)
            _lengths(bottom, rows, labels[name], colour)
            _limit(top, rows, int(depth))
        top.set_title(f"{depth:g} layers")
        bottom.set_xlabel("width $n$")
        bottom.axhline(np.sqrt(depth), ls="--", color=ink(), lw=0.8, label=f"$\\sqrt{{{depth:g}}}$")
        bottom.set_ylim(bottom=0)
        for axis in (top, middle, bottom):
            _widths(axis, same["n"])
            _one_legend(axis)
    for axis, label in zip(axes[:: len(depths)], ("Var $Q$", "Var$(Q/s)$", "$|\\nabla f|$"), strict=True):
        axis.set_ylabel(label)
    return figure


def zero_means(frame: pd.DataFrame, colours: str, labels: dict[str, str]) -> Figure:
    """The standardised means of Q and of g'H_r g, with intervals that hold together."""
    figure, axes = panels(2, columns=2, width=4.6, height=3.2, sharex=True, sharey=True)
    names = sorted(frame[colours].unique())
    depths = sorted(frame["depth"].unique())
    for axis, value in zip(axes, ("Q", "gHrg"), strict=True):
        for (name, depth, n), one in means(frame, value, (colours, "depth", "n")).items():
            at = n * 1.07 ** (len(depths) * names.index(name) + depths.index(depth))
            marker = "osD^"[depths.index(depth) % 4]
            label = f"{labels[name]}, {depth:g} layers" if n == frame["n"].min() else None
            colour = PALETTE[names.index(name)]
            axis.plot([at, at], [one.low, one.high], color=colour, lw=1)
            axis.plot(at, one.value, marker, ms=4, color=colour, label=label)
        axis.axhline(0, color=ink(), lw=0.8)
        _widths(axis, frame["n"])
        axis.set_xlabel("width $n$ (points moved apart)")
        axis.set_title(f"mean of ${SYMBOLS[value]}$" + (", squared loss" if value == "gHrg" else ""))
    axes[0].set_ylabel("mean / standard deviation")
    axes[1].legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _widths(axis: Any, n: pd.Series) -> None:
    """A logarithmic axis that names the widths."""
    axis.set_xscale("log", base=2)
    axis.set_xticks(np.sort(n.unique()), [f"{one:g}" for one in np.sort(n.unique())])


def _one_legend(axis: Any) -> None:
    handles, texts = axis.get_legend_handles_labels()
    once = dict(zip(texts, handles, strict=True))
    axis.legend(once.values(), once.keys(), fontsize=7)


def _scaled(axis: Any, rows: pd.DataFrame, value: str, label: str, colour: Any) -> None:
    """Variances with their intervals, and the fitted slope."""
    n, groups = by_width(rows, value)
    found = [variance(group) for group in groups]
    scaling(axis, n, [one.value for one in found], variance_slope(rows, value), label=f"{label},", color=colour, ms=4)
    _bars(axis, n, found, colour)


def _limit(axis: Any, rows: pd.DataFrame, depth: int) -> None:
    """One variance 1/n for all layers is that of fan_in with as many inputs as units."""
    one = rows.drop_duplicates("n").sort_values("n")
    n = one["n"].to_numpy(float)
    values = wide(depth, n, np.where(one["fan"] == "width", n, one["dim"]))
    if values is not None:
        axis.plot(n, values, "--", color=ink(), lw=1, label="closed form" if depth == 2 else "limit of wide networks")


def _lengths(axis: Any, rows: pd.DataFrame, label: str, colour: Any) -> None:
    """The mean |grad f|, with the range of the middle 95 % of networks."""
    n, groups = by_width(rows, "length")
    middle = np.stack([np.quantile(group, [0.025, 0.975]) for group in groups])
    axis.plot(n, [group.mean() for group in groups], "o-", ms=4, color=colour, label=label)
    axis.fill_between(n, middle[:, 0], middle[:, 1], color=colour, alpha=0.15, lw=0)


def _bars(axis: Any, x: Sequence[float], found: Sequence[Interval], colour: Any) -> None:
    for at, one in zip(x, found, strict=True):
        axis.plot([at, at], [max(one.low, 1e-12), one.high], color=colour, lw=1)
