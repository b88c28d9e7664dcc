"""Theorem 2 of the main paper in data: how likely the curvature along the gradient is negative at the start."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from runner.report import theorem1
from runner.report.drawing import FORMULAS, legend
from runner.report.statistics import (
    Interval,
    Outcome,
    all_of,
    below,
    bootstrap,
    bootstrap_slope,
    difference,
    mean,
    proportion,
)
from runner.report.study import Claim, Finding, Plot, Runs
from runner.report.style import ink, ordered, panels

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75)
CELL = ["dim", "n"]
SYMBOLS = {"n": "n", "dim": "d"}


def draws(runs: Runs) -> pd.DataFrame:
    """A row for each network: its width n and input dimension, kappa = g'Hg / g'g, and whether it is of the half whose
    networks only fit the bound (the replicas with even numbers) or of the half that it is held against."""
    rows = runs.table("metrics", "arch.base_width", "dataset.dim")
    rows = rows[rows["step"] == 0]
    return pd.DataFrame({
        "n": (rows["width"] * rows["arch.base_width"]).round(),
        "dim": rows["dataset.dim"],
        "kappa": rows["split_gHg"] / rows["grad_norm"] ** 2,
        "negative": rows["split_gHg"] < 0,
        "gHrg": rows["split_gHrg"],
        "fits": (rows["replica"] + rows["seed"]) % 2 == 0,
    }).dropna()  # fmt: skip


def probabilities(frame: pd.DataFrame) -> pd.Series:
    """P(g'Hg < 0) in each cell (dim, n)."""
    return pd.Series({cell: proportion(hits.sum(), len(hits)) for cell, hits in frame.groupby(CELL)["negative"]})


def chebyshev(kappa: Any) -> Any:
    """Var / E^2 along the last axis."""
    x = np.asarray(kappa)
    return x.var(axis=-1, ddof=1) / x.mean(axis=-1) ** 2


@dataclass(frozen=True)
class Bound:
    """Chebyshev's: P(kappa < 0) <= Var kappa / (E kappa)^2, as a power law exp(a) n^b d^c of the width and the input
    dimension, so that it has three constants and can be carried to other sizes."""

    a: float
    b: float
    c: float

    def __call__(self, dim: float, n: float) -> float:
        return float(min(1.0, np.exp(self.a) * n**self.b * dim**self.c))


def fitted(frame: pd.DataFrame) -> Bound:
    """Least squares of log Var / E^2 over the cells."""
    ratios = frame.groupby(CELL)["kappa"].agg(chebyshev).reset_index()
    columns = np.column_stack([np.ones(len(ratios)), np.log(ratios["n"]), np.log(ratios["dim"])])
    found = np.linalg.lstsq(columns, np.log(ratios["kappa"]), rcond=None)[0]
    return Bound(*map(float, found))


def bound(frame: pd.DataFrame) -> Bound:
    """Fitted on the one half of the networks, the greatest width left out."""
    return fitted(frame[frame["fits"] & (frame["n"] < frame["n"].max())])


def ends(frame: pd.DataFrame, along: str, at: str) -> dict[float, Interval]:
    """The change of P from the least to the greatest value of `along`, for each value of `at`."""
    found = {}
    for value, rows in frame.groupby(at):
        hits = rows.groupby(along)["negative"]
        first, *_, last = [proportion(one.sum(), len(one)) for _, one in hits]
        found[float(value)] = difference(first, last)
    return found


def _falls(runs: Runs, along: str, at: str) -> Finding:
    frame = draws(runs)
    found = ends(frame, along, at)
    least, greatest = frame[along].min(), frame[along].max()
    said = "; ".join(f"{one} at {SYMBOLS[at]} = {value:g}" for value, one in found.items())
    return Finding(
        all_of(below(one) for one in found.values()),
        f"Change of P(g'Hg < 0) from {SYMBOLS[along]} = {least:g} to {greatest:g}: {said}.",
    )


def falls_with_width(runs: Runs) -> Finding:
    return _falls(runs, "n", "dim")


def falls_with_dimension(runs: Runs) -> Finding:
    return _falls(runs, "dim", "n")


def falls_with_both(runs: Runs) -> Finding:
    frame = draws(runs)
    diagonal = probabilities(frame[frame["n"] == frame["dim"]])
    found = difference(diagonal.iloc[0], diagonal.iloc[-1]) if len(diagonal) > 1 else mean([])
    said = ", ".join(f"{one} at {n:g}" for (_, n), one in diagonal.items())
    return Finding(below(found), f"P(g'Hg < 0) along n = d: {said}; change {found}.")


def covers(runs: Runs) -> Finding:
    """Only where the bound says something: in the other cells it is 1."""
    frame = draws(runs)
    law = bound(frame)
    every = probabilities(frame[~frame["fits"]])
    own = frame[~frame["fits"]].groupby(CELL)["kappa"].agg(chebyshev)
    held = {cell: one for cell, one in every.items() if law(*cell) < 1}
    above = [one.low > law(*cell) for cell, one in held.items()]
    open_ = [one.low <= law(*cell) < one.high for cell, one in held.items()]
    ratios = [law(*cell) / one.value for cell, one in held.items() if one.value > 0]
    outcome = Outcome.FAILS if any(above) else Outcome.UNDECIDED if any(open_) or not held else Outcome.HOLDS
    loose = f", and is {min(ratios):.2g} to {max(ratios):.2g} times as large as it" if ratios else ""
    unseen = f" ({len(held) - len(ratios)} without a negative draw)" if len(ratios) < len(held) else ""
    text = (
        f"The bound exp({law.a:.3g}) n^{law.b:.3g} d^{law.c:.3g} is below 1 in {len(held)} of {len(every)} cells"
        f"{unseen}; it lies below the probability in {sum(above)} of them{loose}. Below the other half's own Var / E^2 "
        f"it lies in {sum(law(*cell) < own[cell] for cell in held)} of them: it bounds what it does by its looseness."
    )
    return Finding(outcome, text)


def bound_improves(runs: Runs) -> Finding:
    """With the width at each input dimension, and with the input dimension at each width."""
    frame = draws(runs)
    outcomes, said = [], []
    for along, at in (("n", "dim"), ("dim", "n")):
        slopes = {value: _slope_of_bound(rows, along) for value, rows in frame.groupby(at)}
        outcomes += [below(one) for one in slopes.values()]
        told = ", ".join(f"{one} at {SYMBOLS[at]} = {value:g}" for value, one in slopes.items())
        said.append(f"over {SYMBOLS[along]}: {told}")
    return Finding(all_of(outcomes), f"Log-log slopes of Var / E^2 {'; '.join(said)}.")


def _slope_of_bound(rows: pd.DataFrame, along: str) -> Interval:
    groups = list(rows.groupby(along)["kappa"])
    return bootstrap_slope([kappa for _, kappa in groups], [float(x) for x, _ in groups], chebyshev, draws=300)


def informative(runs: Runs) -> Finding:
    """The bound at the largest networks."""
    frame = draws(runs)
    n, dim = frame["n"].max(), frame["dim"].max()
    kappa = frame[frame["fits"] & (frame["n"] == n) & (frame["dim"] == dim)]["kappa"].to_numpy()
    found = bootstrap(kappa, lambda x: float(chebyshev(x)))
    law = bound(frame)
    cells = [law(*cell) < 1 for cell, _ in frame.groupby(CELL)]
    told = f"Var/E^2 at n = {n:g}, d = {dim:g}: {found}; the fitted law gives {law(dim, n):.3g} there"
    return Finding(below(found, 1.0), f"{told} and is less than 1 in {sum(cells)} of {len(cells)} cells.")


def residual_zero(runs: Runs) -> Finding:
    return theorem1.zero_mean(draws(runs), "gHrg", CELL)


def probability(runs: Runs) -> Figure:
    """P(g'Hg < 0) over the width, and the bound; then over the input dimension."""
    frame = draws(runs)
    found = probabilities(frame[~frame["fits"]])
    law = bound(frame)
    figure, axes = panels(2, columns=2, width=5.0, height=3.8, sharey=True)
    for axis, along, at, label in ((axes[0], 1, 0, "d = {:g}"), (axes[1], 0, 1, "n = {:g}")):
        settings = sorted(set(found.index.get_level_values(at)))
        for setting, colour in zip(settings, ordered(len(settings)), strict=True):
            line = found.xs(setting, level=at)
            _measured(axis, line, colour, label.format(setting))
            cells = [(setting, x) if at == 0 else (x, setting) for x in line.index]
            axis.plot(line.index, [law(*cell) for cell in cells], "--", color=colour, lw=1)
        axis.plot([], [], "--", color=ink(), lw=1, label="the bound")
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_xticks(sorted(line.index), [f"{one:g}" for one in sorted(line.index)])
        axis.set_xlabel(("input dimension $d$", "width $n$")[along])
    axes[0].set_ylabel("$P(g^{\\top}Hg < 0)$ at the start")
    legend(axes[0])
    axes[1].legend(loc="center left", bbox_to_anchor=(1, 0.5))  # inside, it would lie on a curve
    return figure


def _measured(axis: Any, line: pd.Series, colour: Any, label: str) -> None:
    """Probabilities with their intervals; where nothing was seen, an arrow at what the interval still allows."""
    seen = {x: one for x, one in line.items() if one.value > 0}
    axis.plot(list(seen), [one.value for one in seen.values()], "o-", color=colour, label=label)
    for x, one in line.items():
        if one.value > 0:
            axis.plot([x, x], [one.low, one.high], color=colour, lw=1)
        else:
            axis.plot(x, one.high, "v", color=colour, fillstyle="none")


def quantiles(runs: Runs) -> Figure:
    """Quantiles of the curvature over the width, a panel for each input dimension."""
    frame = draws(runs)
    groups = list(frame.groupby("dim"))
    figure, axes = panels(len(groups), columns=len(groups), width=2.7, height=3.2, sharey=True)
    for axis, (dim, rows) in zip(axes, groups, strict=True):
        table = rows.groupby("n")["kappa"].quantile(list(QUANTILES)).unstack()
        for quantile, colour in zip(QUANTILES, ordered(len(QUANTILES)), strict=True):
            axis.plot(table.index, table[quantile], "o-", ms=4, color=colour, label=f"{quantile:.0%}")
        axis.axhline(0, color=ink(), lw=0.8)
        axis.set_xscale("log", base=2)
        axis.set_xticks(table.index, [f"{one:g}" for one in table.index])
        axis.set_title(f"d = {dim:g}")
        axis.set_xlabel("width $n$")
    axes[0].set_ylabel("quantiles of " + FORMULAS["gHg_over_gg"])
    legend(axes[-1])
    return figure


CLAIMS = (
    Claim(
        "width",
        "Negative curvature along the gradient is less likely in wider networks.",
        "P(g'Hg < 0) at the greatest width less that at the least is below zero at each input dimension, with "
        "Newcombe's interval over networks.",
        falls_with_width,
    ),
    Claim(
        "input dimension",
        "It is less likely with inputs of higher dimension.",
        "The same between the greatest and the least input dimension, at each width.",
        falls_with_dimension,
    ),
    Claim(
        "both",
        "It is less likely where width and input dimension grow together.",
        "P(g'Hg < 0) at the greatest n = d less that at the least is below zero, with Newcombe's interval.",
        falls_with_both,
    ),
    Claim(
        "bound",
        "Chebyshev's inequality bounds the probability: P <= Var / E^2 of g'Hg / g'g.",
        "The bound as a power law of n and d is fitted on half of the networks, without the greatest width. On the "
        "other half, at all widths, it lies above Wilson's interval of the probability in every cell in which it is "
        "below 1. One cell whose interval lies above the bound is enough against it. (For a cell's own moments it is "
        "a theorem: what is tried is that a power law carries them to other draws and widths.)",
        covers,
    ),
    Claim(
        "bound improves",
        "The bound improves with the width and with the input dimension.",
        "The log-log slope of Var / E^2 over the width is below zero at each input dimension, and that over the input "
        "dimension at each width (bootstrap intervals over networks). One that lies above zero is enough against it.",
        bound_improves,
    ),
    Claim(
        "informative",
        "The bound says something: it is less than one, at the largest networks at least.",
        "The bootstrap interval of Var / E^2 of g'Hg / g'g at the greatest width and input dimension lies below 1.",
        informative,
    ),
    Claim(
        "residual part",
        "E[g'H_r g] = 0 for a loss with bounded derivatives.",
        theorem1.ZERO_RULE,
        residual_zero,
    ),
)


def remark(runs: Runs) -> str:
    return (
        "Inputs have unit norm and weights a variance in 1/fan_in, so that the first layer passes on activations whose "
        "squared length goes with n/d: the larger d is, the smaller they are, and with them g'Gg / g'g, which is what "
        "outweighs a negative residual part. With one variance for all layers and normal weights the input dimension "
        f"makes no difference at all, since only the input's length enters.{dead(runs)}"
    )


def dead(runs: Runs) -> str:
    """A sentence on networks without a gradient, if any: there is no curvature along it."""
    count, every = int((runs.metrics["grad_norm"] == 0).sum()), len(runs.metrics)
    return f" {count:,} of {every:,} networks have no gradient at all, and are left out." if count else ""


PLOTS = (
    Plot(
        "probability",
        "The share of networks with negative curvature along the gradient, of the half that the bound was not fitted "
        "on, with 95 % intervals (open triangles: none was seen, the interval ends there). Dashed: the bound.",
        probability,
    ),
    Plot("quantiles", "Quantiles of the curvature over networks: with the width the lower ones rise.", quantiles),
)
