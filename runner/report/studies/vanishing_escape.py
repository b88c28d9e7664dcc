"""Which optimizer leaves the plateau where narrow deep networks start, and when."""

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from runner.errors import BadInput
from runner.report.drawing import legend
from runner.report.statistics import Interval, Outcome, below, proportion, rank_correlation
from runner.report.study import Claim, Finding, Plot, Runs, Study
from runner.report.style import PALETTE, ink, ordered, panels
from runner.report.vanishing import living, starts

LEFT = 0.9  # of the loss at the start
WINDOW = 5  # measured steps over which the training loss is averaged
NAMES = {"SGD": "SGD", "Adam": "Adam"}
CONFIG = ("arch.depth", "optimizer._target_", "optimizer.lr")


def paths(runs: Runs) -> pd.DataFrame:
    """The rows of all networks: `optimizer`, `rate`, `depth`, and `relative`, the loss over that of the start, averaged
    over a few measured steps."""
    rows = runs.table("metrics", *CONFIG).sort_values(["run", "replica", "step"], kind="stable")
    each = rows.groupby(["run", "replica"], sort=False)["train_loss"]
    smooth = each.transform(lambda loss: loss.rolling(WINDOW, min_periods=1).mean())
    return rows.assign(
        optimizer=rows["optimizer._target_"].str.rsplit(".", n=1).str[-1],
        rate=rows["optimizer.lr"],
        depth=rows["arch.depth"].astype(int),
        network=rows["seed"] + rows["replica"],
        relative=smooth / each.transform("first"),
    )


def escapes(runs: Runs) -> pd.DataFrame:
    """For each network `escaped`, and `time`: the first step at which its loss is below LEFT of that at the start; for
    one that stays or diverges the last step of all, `horizon`. `end`: its last loss over the first."""
    rows = paths(runs)
    horizon = rows["step"].max()
    keys = ["optimizer", "rate", "depth", "network"]
    first = rows[rows["relative"] < LEFT].groupby(keys)["step"].min()
    found = rows[keys].drop_duplicates().set_index(keys)
    found["time"] = first.reindex(found.index)
    found["end"] = rows.groupby(keys)["relative"].last()
    found["escaped"] = found["time"].notna()
    return found.fillna({"time": horizon}).reset_index().assign(horizon=horizon)


def best(found: pd.DataFrame) -> pd.DataFrame:
    """Those at the rate at which most networks leave; of several such rates, where they leave sooner, then where the
    loss ends lower."""
    score = found.groupby("rate").agg(share=("escaped", "mean"), time=("time", "mean"), end=("end", "median"))
    return found[found["rate"] == score.sort_values(["share", "time", "end"], ascending=[False, True, True]).index[0]]


def at_best(runs: Runs) -> dict[tuple[str, int], pd.DataFrame]:
    """The escapes at the best rate of each optimizer and depth."""
    return {(str(key[0]), int(key[1])): best(rows) for key, rows in escapes(runs).groupby(["optimizer", "depth"])}


def stays(runs: Runs) -> Finding:
    """Whether SGD stays where Adam leaves."""
    found = at_best(runs)
    deepest = max(depth for _, depth in found)
    if not {("SGD", deepest), ("Adam", deepest)} <= set(found):
        raise BadInput(f"the runs should have SGD and Adam at depth {deepest}, found {sorted(found)}")
    shares: dict[str, Interval] = {}
    said, every = [], escapes(runs)
    for name in NAMES:
        rows = found[name, deepest]
        shares[name] = proportion(int(rows["escaped"].sum()), len(rows))
        mine = every[(every["optimizer"] == name) & (every["depth"] == deepest)]
        said.append(f"{name} {shares[name]} at {_rate(rows['rate'].iloc[0], mine)}")
    text = (
        f"Share of networks of depth {deepest} that leave in {int(rows['horizon'].iloc[0])} steps: {', '.join(said)}."
    )
    if shares["SGD"].high < 0.5 < shares["Adam"].low:
        return Finding(Outcome.HOLDS, text)
    fails = shares["SGD"].low > 0.5 or shares["Adam"].high < 0.5
    return Finding(Outcome.FAILS if fails else Outcome.UNDECIDED, text)


def _rate(rate: float, every: pd.DataFrame) -> str:
    """The best rate, and whether it is one of the outermost, beyond which a better one may lie."""
    least, greatest = every["rate"].min(), every["rate"].max()
    if not every["escaped"].any():
        return f"every rate from {least:g} to {greatest:g}"
    ends = {least: ", the least tried", greatest: ", the greatest tried"}
    others = ", ".join(f"{one:g}" for one in sorted(every["rate"].unique()))
    return f"its best rate {rate:g}{ends.get(rate, '')} (of {others})"


def grows(runs: Runs) -> Finding:
    """Whether the time to leave goes with the curvature at the start."""
    rows = timed(runs, "SGD")
    found = within_depths(rows)
    stayed = 1 - rows["escaped"].mean()
    said = "Rank correlation within depths of the time SGD takes with max|eigenvalue| at the start: "
    length = rank_correlation(rows, "gradient", "time", "depth", over="network")
    said += f"{found} (at its best rate; {stayed:.0%} stayed and count as the last step); with |g| there: {length}."
    return Finding(below(found), said)


def timed(runs: Runs, name: str) -> pd.DataFrame:
    """The escapes of an optimizer at its best rate of all depths together, with the curvature at the start."""
    found = escapes(runs)
    chosen = best(found[found["optimizer"] == name])
    at = living(starts(runs)).drop_duplicates(["depth", "network"])
    return chosen.merge(at[["depth", "network", "curvature", "gradient"]], on=["depth", "network"])


def within_depths(rows: pd.DataFrame) -> Interval:
    """The correlation of the ranks of curvature and time within each depth. Depths that no network leaves add
    nothing."""
    return rank_correlation(rows, "curvature", "time", "depth", over="network")


def losses(runs: Runs) -> Figure:
    """Training loss over steps, each optimizer at its best rate."""
    rows, found = paths(runs), at_best(runs)
    depths = sorted({depth for _, depth in found})
    figure, axes = panels(len(depths), columns=3, width=3.6, height=3.2, sharey=True)
    for axis, depth in zip(axes, depths, strict=True):
        for name, colour in zip(NAMES, (PALETTE[0], PALETTE[5]), strict=True):
            if (name, depth) in found:
                _loss(axis, rows, name, depth, float(found[name, depth]["rate"].iloc[0]), colour)
        axis.axhline(LEFT, color=ink(), lw=0.8, ls="--")
        axis.set_title(f"depth {depth}")
        axis.set_xlabel("step")
        axis.legend()
    axes[0].set_ylabel("training loss / that of the start")
    axes[0].set_ylim(0, 1.2)
    return figure


def _loss(axis: Any, rows: pd.DataFrame, name: str, depth: int, rate: float, colour: Any) -> None:
    mine = rows[(rows["optimizer"] == name) & (rows["depth"] == depth) & (rows["rate"] == rate)]
    for _, one in mine.groupby("network"):
        axis.plot(one["step"], one["relative"], color=colour, lw=0.6, alpha=0.35)
    each = mine.pivot(index="step", columns="network", values="relative")
    middle = each.dropna(thresh=each.shape[1] // 2 + 1).median(axis=1)  # not at the last steps of those that diverged
    axis.plot(middle.index, middle, color=colour, lw=2.2, label=f"{name}, rate {rate:g}")


def shares(runs: Runs) -> Figure:
    """How many leave, for every rate: the comparison does not hang on one."""
    found = escapes(runs)
    names = [name for name in NAMES if name in set(found["optimizer"])]
    figure, axes = panels(len(names), width=4.2, height=3.1, sharey=True)
    depths = sorted(found["depth"].unique())
    for axis, name in zip(axes, names, strict=True):
        for depth, colour in zip(depths, ordered(len(depths)), strict=True):
            rows = found[(found["optimizer"] == name) & (found["depth"] == depth)]
            share = rows.groupby("rate")["escaped"].mean()
            axis.plot(share.index, share, "o-", color=colour, label=f"depth {depth}")
        axis.set_xscale("log")
        axis.set_ylim(-0.05, 1.05)
        axis.set_title(name)
        axis.set_xlabel("learning rate")
    axes[0].set_ylabel("share that leaves the plateau")
    legend(axes[0])
    return figure


def times(runs: Runs) -> Figure:
    """Time to leave against the curvature at the start."""
    figure, axes = panels(2, width=4.2, height=3.2, sharey=True, sharex=True)
    for axis, name in zip(axes, NAMES, strict=True):
        rows = timed(runs, name)
        depths = sorted(rows["depth"].unique())
        for depth, colour in zip(depths, ordered(len(depths)), strict=True):
            one = rows[rows["depth"] == depth]
            left = one["escaped"]
            axis.plot(one["curvature"][left], one["time"][left], "o", color=colour, alpha=0.8, label=f"depth {depth}")
            axis.plot(one["curvature"][~left], one["time"][~left], "x", color=colour)
        axis.axhline(rows["horizon"].max(), color=ink(), lw=0.6, ls="--")
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_title(f"{name}, rate {rows['rate'].iloc[0]:g}")
        axis.set_xlabel("$\\max|\\lambda(H)|$ at the start")
    axes[0].set_ylabel("steps to leave the plateau (x: stays)")
    legend(axes[0])
    return figure


STUDY = Study(
    title="Leaving the plateau: SGD and Adam",
    paper="Vanishing Curvature and the Power of Adaptive Methods in Randomly Initialized Deep Networks",
    setting="ReLU networks of 16 units without biases under Xavier, on MNIST (a subset), cross-entropy, minibatches of "
    "50, several initialisations; each optimizer with a sweep of rates, of which the best counts for each. A network "
    f"has left when its training loss, averaged over {WINDOW} measured steps, is below {LEFT:g} of that at the start.",
    claims=(
        Claim(
            "SGD stays, Adam leaves",
            "Deep narrow networks: SGD stays on the plateau where Adam leaves it.",
            "At the greatest depth, each at its best rate, the 95 % interval of the share of networks that leave lies "
            "below 1/2 for SGD and above 1/2 for Adam. It does not hold where SGD's lies above or Adam's below.",
            stays,
            of_diverged=True,
        ),
        Claim(
            "smaller curvature, longer stay",
            "The time to leave grows as the curvature at the start shrinks.",
            "The correlation of the ranks of SGD's time and of the largest |eigenvalue| at the start, taken within "
            "each depth, at the rate that is best over all depths, is below zero (bootstrap interval over networks).",
            grows,
            of_diverged=True,
        ),
    ),
    plots=(
        Plot("loss", "Thin: each network; thick: their median, each optimizer at its best rate for the depth. Dashed: "
             "where the plateau ends.", losses),
        Plot("times", "Crosses stay to the end of the run, dashed. Each optimizer at its best rate over all depths.",
             times),
        Plot("shares", "All rates that were tried.", shares),
    ),
)  # fmt: skip
