"""How gradient and curvature of random deep networks vanish over depth and width."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from runner.report.drawing import legend, map_of
from runner.report.statistics import FEW, Interval, Outcome, above, all_of, below, bootstrap, finite, mean
from runner.report.study import Claim, Finding, Plot, Runs, Study
from runner.report.style import PALETTE, ink, ordered, panels
from runner.report.vanishing import FORMULAS, POWERS, SIZES, cells, each, living, logarithms, rates, starts

SHARE = 0.2  # of the narrowest networks' rate: what is left along depth / width = constant
COLLAPSED = 0.5  # of the spread over widths at equal depth
FACTOR = 10.0
ENOUGH = 12  # living networks


def laws(runs: Runs) -> dict[str, pd.DataFrame]:
    """The starts by the law that drew them."""
    rows = starts(runs, "init.gain")
    named = rows.assign(init=np.where(rows["init.gain"] > 1.2, "He", "Xavier"))
    return {str(name): one for name, one in named.groupby("init")}


def vanishes(runs: Runs) -> Finding:
    outcomes, said = [], []
    for name, rows in laws(runs).items():
        narrow = rows[rows["units"] == rows["units"].min()]
        found = {size: mean(rates(narrow, size)) for size in SIZES}
        outcomes += [below(one) for one in found.values()]
        dead = narrow[narrow["depth"] == narrow["depth"].max()]["dead"].mean()
        said.append(f"{name}, {rows['units'].min()} units: {each(found)} ({dead:.0%} of the deepest dead)")
    return Finding(all_of(outcomes), f"Change of the mean log per layer: {'; '.join(said)}.")


def collapses(runs: Runs) -> Finding:
    """Whether it is depth / width that sizes go with under He, and not the depth."""
    rows = laws(runs)["He"]
    found = {size: spread_ratio(rows, size) for size in SIZES}
    return Finding(
        all_of(below(one, COLLAPSED) for one in found.values()),
        f"Spread of the mean log over widths at equal depth / width, over that at equal depth, He: {each(found)}.",
    )


def spread_ratio(rows: pd.DataFrame, size: str, draws: int = 1000) -> Interval:
    """The mean range over widths of the mean log (per layer, living networks) at equal depth / width, over the one at
    equal depth; with its percentile bootstrap interval, each setting's starts drawn anew; infinite where one has a few
    only."""
    alive = living(rows)
    logs = {key: logarithms(one, size).to_numpy() for key, one in alive.groupby(["depth", "units"])}
    generator = np.random.default_rng(0)
    drawn = {key: generator.choice(one, (draws, len(one))).mean(1) for key, one in logs.items()}
    ratios = _ranges(drawn, lambda depth, units: depth / units) / _ranges(drawn, lambda depth, units: depth)
    exact = {key: one.mean(keepdims=True) for key, one in logs.items()}
    value = _ranges(exact, lambda depth, units: depth / units) / _ranges(exact, lambda depth, units: depth)
    fewest = min(map(len, logs.values()))
    low, high = np.quantile(ratios, [0.025, 0.975]) if fewest >= FEW else (-np.inf, np.inf)
    return Interval(float(value[0]), float(low), float(high), fewest)


def _ranges(means: dict[Any, np.ndarray], by: Callable[[int, int], float]) -> np.ndarray:
    """The mean, over the groups `by` of several settings, of the range of their means."""
    groups: dict[float, list[np.ndarray]] = {}
    for (depth, units), one in means.items():
        groups.setdefault(by(depth, units), []).append(one)
    return np.mean([np.ptp(np.stack(one), axis=0) for one in groups.values() if len(one) > 1], axis=0)


def cured(name: str) -> Any:
    """Whether nothing vanishes where the width grows like the depth, for one law of weights."""

    def judge(runs: Runs) -> Finding:
        rows = laws(runs)[name]
        diagonal = along(rows)
        narrow = rows[rows["units"] == rows["units"].min()]
        outcomes, said = [], []
        for size in SIZES:
            reference, left = mean(rates(narrow, size)), mean(rates(diagonal, size))
            vanishing = below(reference) is Outcome.HOLDS
            outcomes.append(above(left, SHARE * reference.value) if vanishing else Outcome.UNDECIDED)
            said.append(f"{size} {left}, against {reference} at {narrow['units'].min()} units")
        grown = diagonal[["depth", "units"]].drop_duplicates().sort_values("depth").to_numpy()
        shape = ", ".join(f"{depth} x {units}" for depth, units in grown)
        return Finding(all_of(outcomes), f"Change of the mean log per layer along {shape}: {'; '.join(said)}.")

    return judge


def along(rows: pd.DataFrame) -> pd.DataFrame:
    """The networks of the depth / width that is there at most depths; of several the least."""
    ratio = rows["depth"] / rows["units"]
    depths = rows.groupby(ratio)["depth"].nunique()
    return rows[ratio == depths.idxmax()]


def mean_misleads(runs: Runs) -> Finding:
    rows = laws(runs)["He"]
    alive = {key: living(one) for key, one in rows.groupby(["depth", "units"])}
    enough = [key for key, one in alive.items() if len(one) >= ENOUGH]
    depth, units = max(enough, key=lambda key: (key[0] / key[1], key[0]))
    found = excess(alive[depth, units]["gradient"] ** 2)
    said = f"ln(mean / median) of |g|^2 over {found.n} living networks of depth {depth} and {units} units, He: {found}."
    return Finding(above(found, float(np.log(FACTOR))), said)


def excess(values: pd.Series) -> Interval:
    """ln(mean / median), with its bootstrap interval."""
    return bootstrap(finite(values), lambda x: float(np.log(x.mean() / np.median(x))), draws=2000)


def maps(runs: Runs) -> Figure:
    """Medians over depth and width."""
    found = laws(runs)
    figure, axes = panels(len(found) * len(SIZES), columns=len(SIZES), width=3.6, height=3.0)
    for row, (name, rows) in enumerate(found.items()):
        for axis, size in zip(axes[len(SIZES) * row :], SIZES, strict=False):
            map_of(axis, rows, "units", "depth", size, f"{name}: median {FORMULAS[size]}")
            axis.set_xlabel("width (units)")
            axis.set_ylabel("depth (weight layers)")
            for place in np.argwhere(rows.pivot_table(size, "depth", "units", "median").to_numpy() == 0):
                axis.text(place[1], place[0], "mostly\ndead", ha="center", va="center", fontsize=7)
    return figure


def collapse(runs: Runs) -> Figure:
    """Typical sizes against depth / width: one curve if that is all that counts."""
    found = laws(runs)
    figure, axes = panels(len(found) * len(SIZES), columns=len(SIZES), width=3.6, height=3.0, sharex=True)
    for row, (name, rows) in enumerate(found.items()):
        table = cells(rows, "units", "depth")
        for axis, size in zip(axes[len(SIZES) * row :], SIZES, strict=False):
            for (units, one), colour in zip(table.groupby("units"), ordered(table["units"].nunique()), strict=True):
                scaled = one[f"{size}_typical"] / one["depth"] ** POWERS[size]
                axis.plot(one["depth"] / units, scaled, "o-", color=colour, label=f"{units} units")
            axis.set_yscale("log")
            axis.set_xscale("log", base=2)
            axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axis.set_xlabel("depth / width")
            axis.set_title(f"{name}: typical {FORMULAS[size]} per layer")
    legend(axes[0])
    return figure


def spread(runs: Runs) -> Figure:
    """The narrowest He networks: each one, their median, and their mean, which is another thing."""
    rows = laws(runs)["He"]
    rows = rows[rows["units"] == rows["units"].min()]
    figure, axes = panels(len(SIZES) + 1, columns=2, width=4.4, height=3.2)
    table = cells(rows, "depth")
    for axis, size in zip(axes, SIZES, strict=False):
        alive = living(rows)
        jitter = 2 ** (0.3 * (np.random.default_rng(0).random(len(alive)) - 0.5))
        axis.plot(alive["depth"] * jitter, alive[size], ".", color=PALETTE[6], alpha=0.4, ms=4)
        axis.plot(table["depth"], table[f"{size}_rms"], "s--", color=PALETTE[5], label="root mean square")
        axis.plot(table["depth"], table[f"{size}_mean"], "^--", color=PALETTE[1], label="mean")
        axis.plot(table["depth"], table[f"{size}_typical"], "o-", color=PALETTE[0], label="exp(mean log), living")
        shown = table[table[f"{size}_median"] > 0]
        axis.plot(shown["depth"], shown[f"{size}_median"], "D-", color=PALETTE[2], label="median, dead ones too")
        axis.set_yscale("log")
        axis.set_title(f"He, {rows['units'].iloc[0]} units: {FORMULAS[size]}")
    _deaths(axes[-1], runs)
    for axis in axes:
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_xlabel("depth (weight layers)")
    legend(axes[1])
    return figure


def _deaths(axis: Any, runs: Runs) -> None:
    rows = pd.concat(laws(runs).values())
    table = cells(rows, "units", "depth")
    for (units, one), colour in zip(table.groupby("units"), ordered(table["units"].nunique()), strict=True):
        axis.plot(one["depth"], one["dead"], "o-", color=colour, label=f"{units} units")
    axis.axhline(0.5, color=ink(), lw=0.6, ls="--")
    axis.set_ylim(-0.03, 1.03)
    axis.set_title("share of dead networks ($g = 0$)")
    legend(axis)


def remark(runs: Runs) -> str:
    return (
        "Under He a ReLU layer of k units changes the mean log of the signal by about -5 / (4 k), although it keeps "
        "the mean square: the rate is one of depth / width. Under Xavier each ReLU layer also halves the mean square, "
        "-ln(2) / 2 = -0.35 a layer whatever the width: width alone cannot cure that, and the paper's remedy is one "
        "for a law that suits the activation."
    )


STUDY = Study(
    title="Vanishing gradients and curvature over depth and width",
    paper="Vanishing Curvature and the Power of Adaptive Methods in Randomly Initialized Deep Networks",
    setting="Fully connected ReLU networks without biases at their start, He and Xavier, on one point of the unit "
    "sphere (as many dimensions as units; more points would add up the better the deeper the network, which hides the "
    "law) with a label of size one, squared loss, float64. Curvature is the largest |eigenvalue| of "
    "the Hessian, norm its Frobenius norm (Hutch++). A network is dead where its gradient is exactly zero; rates "
    "are over the living ones.",
    claims=(
        Claim(
            "vanishes with depth",
            "In narrow networks the typical gradient and Hessian vanish exponentially with depth, also under He.",
            "The slope of ln |g|, ln max|eigenvalue| and ln |H|_F over depth (all per layer), fitted for each seed "
            "over the depths at which it is alive, has a mean below zero at the least width, for both laws.",
            vanishes,
        ),
        Claim(
            "depth over width",
            "Under He it is depth / width that counts: networks of equal depth / width are alike, those of equal "
            "depth are not.",
            "Range over widths of the mean log (living networks, per layer) at equal depth / width, averaged, "
            f"over the same at equal depth: its bootstrap interval lies below {COLLAPSED:g}, for gradient, curvature "
            "and norm. It does not hold where one lies above.",
            collapses,
        ),
        Claim(
            "width cures, He",
            "Nothing vanishes exponentially if the width grows like the depth: He.",
            f"Along depth / width = constant the mean slope per layer lies above {SHARE:g} of that at the least width "
            "for gradient, curvature and norm. It does not hold where one lies below; it stays open where the "
            "least width does not vanish.",
            cured("He"),
        ),
        Claim(
            "width cures, Xavier",
            "Nothing vanishes exponentially if the width grows like the depth: Xavier.",
            "As for He: the mean slope per layer along depth / width = constant against that at the least width.",
            cured("Xavier"),
        ),
        Claim(
            "means mislead",
            "Where He preserves the mean square the typical network is far below it: sample means mislead.",
            f"At the greatest depth / width with {ENOUGH} living networks the mean of their |g|^2 is more than "
            f"{FACTOR:g} times the median (bootstrap of the log ratio); it does not hold where it is surely less.",
            mean_misleads,
        ),
    ),
    plots=(
        Plot("maps", "Medians over all starts, dead ones included.", maps),
        Plot("collapse", "exp(mean log) over living networks; gradient / sqrt(depth), the others / depth.",
             collapse),
        Plot("spread", "Each grey point is a start; dead networks are not on the logarithmic axes.", spread),
    ),
    remark=remark,
)  # fmt: skip
