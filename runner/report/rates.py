"""A rate that the measured curvature drives against rates that are planned, at equal cost."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from runner.report.statistics import LEVEL, Interval, all_of, below, mean
from runner.report.study import Claim, Finding, Runs

COST = 5 / 3  # training steps that a measurement takes, by the products it makes
LATE = 0.9  # of the budget: the loss is a mean from there on
PLANNED = ("constant", "halving", "cosine")
DRIVEN = ("curvature", "relaxed curvature", "target curvature")
GIVEN_UP = 0.1  # of the fall of the loss, in decades


# The claims: of which schedule, under which name, in words.
LOWER = (
    (
        "curvature",
        "suggested step",
        "Discussion: curvature could drive the learning rate. The rate g'g / g'Gg, averaged, trains to a lower loss at "
        "equal cost than a constant, a halved or a cosine one.",
    ),
    (
        "relaxed curvature",
        "relaxed step",
        "The same of the rate 1.5 g'g / g'Gg, beyond the minimum along g: steps to the minimum go zigzag.",
    ),
    (
        "target curvature",
        "held curvature",
        "Discussion: large gradients with near-zero curvature. A rate that holds lr g'Hg / g'g at a target trains to a "
        "lower loss at equal cost than a constant, a halved or a cosine one.",
    ),
)
NO_SEARCH = (
    (
        "curvature",
        "step needs no search",
        "A rate that follows g'g / g'Gg need not be searched for: from every initial rate the loss falls nearly as far "
        "as with the best planned schedule.",
    ),
    ("relaxed curvature", "relaxed needs no search", "The same of the rate 1.5 g'g / g'Gg."),
    ("target curvature", "target needs no search", "The same of the rate that holds lr g'Hg / g'g."),
)


def at_cost(runs: Runs) -> pd.DataFrame:
    """The rows of metrics.csv up to the cost at which the planned runs end, with `arm`, the schedule; `initial`, the
    optimizer's rate; `cost` in training steps, the schedule's measurements included."""
    keys = ("schedule._target_", "schedule.mode", "schedule.damping", "schedule.every", "optimizer.lr")
    rows = runs.table("metrics", *keys)
    names = rows["schedule._target_"].str.rsplit(".", n=1).str[-1].str.lower()
    every = pd.to_numeric(rows["schedule.every"])
    cost = rows["step"] + (COST * (rows["step"] // every + 1)).where(every.notna(), 0.0)
    arm = names.mask(pd.to_numeric(rows["schedule.damping"]) > 1, "relaxed curvature")
    arm = arm.mask(rows["schedule.mode"] == "target", "target curvature")
    found = rows.assign(arm=arm, initial=rows["optimizer.lr"], cost=cost)
    budget = found.loc[found["arm"].isin(PLANNED), "cost"].max()
    return found[found["cost"] <= budget]


def finals(rows: pd.DataFrame) -> pd.DataFrame:
    """log10 of the training loss late in each run, infinite where it diverged: `loss` by arm, initial, width, seed."""
    late = rows[rows["cost"] > LATE * rows["cost"].max()]
    keys = ["arm", "initial", "width", "seed"]
    found = np.log10(late.groupby(keys)["train_loss"].mean())
    every = rows.groupby(keys)["status"].first()
    return found.reindex(every.index).where(every != "diverged").fillna(np.inf).rename("loss").reset_index()


def best_of(found: pd.DataFrame) -> pd.DataFrame:
    """The runs of each arm and width at the initial rate whose mean over seeds is the lowest."""
    means = found.groupby(["arm", "width", "initial"])["loss"].mean().reset_index()
    chosen = means.sort_values(["loss", "initial"]).drop_duplicates(["arm", "width"])
    return found.merge(chosen[["arm", "width", "initial"]])


@dataclass(frozen=True)
class Rival:
    """The planned schedule that does best at a width, at the best of its rates: the loss of each seed."""

    name: str
    loss: pd.Series


def rival(found: pd.DataFrame, width: float) -> Rival:
    planned = best_of(found[(found["width"] == width) & found["arm"].isin(PLANNED)])
    name = str(planned.groupby("arm")["loss"].mean().idxmin())
    rows = planned[planned["arm"] == name]
    initial, tried = rows["initial"].iloc[0], found["initial"]
    edge = {tried.min(): ", the least tried", tried.max(): ", the greatest tried"}.get(initial, "")
    return Rival(f"{name} from {initial:g}{edge}", rows.set_index("seed")["loss"])


def lower_loss(arm: str, runs: Runs) -> Finding:
    """By how many decades the driven rate's loss lies above its best rival's, a difference for each seed."""
    found = finals(at_cost(runs))
    outcomes, said, level = [], [], together(found)
    for width in sorted(found["width"].unique()):
        own = best_of(found[(found["width"] == width) & (found["arm"] == arm)])
        other = rival(found, width)
        losses = own.set_index("seed")["loss"], other.loss, level
        outcomes.append(below(paired(*losses)))
        said.append(f"{described(*losses)} against {other.name} at width {width:g}")
    return Finding(all_of(outcomes), f"log10 of the ratio of the losses: {'; '.join(said)}.")


def needs_no_rate(arm: str, runs: Runs) -> Finding:
    """What the worst initial rate gives up of the decades by which the best planned schedule lowers the loss."""
    rows = at_cost(runs)
    found, start = finals(rows), np.log10(rows[rows["step"] == 0].groupby(["width", "seed"])["train_loss"].first())
    outcomes, said, spreads, level = [], [], [], together(found)
    for width in sorted(found["width"].unique()):
        other = rival(found, width).loss
        each = found[found["width"] == width].groupby(["arm", "seed"])["loss"]
        worst, spread = each.max(), (each.max() - each.min()).groupby("arm").mean()
        own, constant = ((worst[name], other, level, start[width] - other) for name in (arm, "constant"))
        outcomes.append(below(paired(*own), GIVEN_UP))
        said.append(f"{described(*own)} at width {width:g} (a constant rate: {described(*constant)})")
        spreads.append(f"{spread[arm]:.2g} decades at width {width:g} (a constant rate: {spread['constant']:.2g})")
    text = (
        f"Share of the fall that the worst initial rate gives up: {'; '.join(said)}. How far the schedule's own losses "
        f"from the initial rates lie apart: {'; '.join(spreads)}."
    )
    return Finding(all_of(outcomes), text)


def together(found: pd.DataFrame) -> float:
    """The level at which the intervals of all widths hold together (Bonferroni)."""
    return 1 - (1 - LEVEL) / found["width"].nunique()


def paired(own: pd.Series, other: pd.Series, level: float, unit: pd.Series | float = 1.0) -> Interval:
    """The mean of own - other over the seeds of both, in a unit. A run that diverged is infinitely worse than one that
    did not; it tells nothing beside another that did, as nothing is told in a unit that is not positive."""
    pairs = pd.DataFrame({"own": own, "other": other, "unit": unit}).dropna(subset=["own", "other"])
    gaps = pairs["own"] - pairs["other"]
    infinite = set(gaps[np.isinf(gaps)])
    if gaps.isna().any() or not (pairs["unit"] > 0).all() or len(infinite) > 1:
        return Interval(np.nan, -np.inf, np.inf, len(gaps))
    if infinite:
        (gap,) = infinite
        return Interval(gap, gap, gap, len(gaps))
    return mean(gaps / pairs["unit"], level)


def described(own: pd.Series, other: pd.Series, level: float, unit: pd.Series | float = 1.0) -> str:
    """The same in words: where it is infinite, by how many runs, and what it is of the others."""
    gone = np.isinf(own)
    if not gone.any():
        return str(paired(own, other, level, unit))
    if gone.all():
        return "inf (all diverged)"
    return f"inf ({gone.sum()} of {len(own)} diverged; of the others {paired(own[~gone], other, level, unit)})"


def remark(runs: Runs) -> str:
    """What the measurements really took, beside what was counted."""
    costs = [meta.get("cost_in_training_steps", {}).get("schedule") for meta in runs.metas]
    found = [cost for cost in costs if cost]
    if not found:
        return ""
    return (
        f"A measurement is counted as 5/3 training steps; by the clock it took {np.median(found):.2g} (median over "
        f"{len(found)} runs)."
    )


def _lower(arm: str, name: str, text: str) -> Claim:
    rule = (
        "Per width, each schedule at the best of the same initial rates (lowest mean log10 loss over seeds). The "
        "difference of log10 training loss to the best of constant, halving and cosine, paired over seeds, has a mean "
        "below zero at every width, with intervals that hold together (Bonferroni); a run that diverged is infinitely "
        "worse."
    )
    return Claim(name, text, rule, partial(lower_loss, arm), of_diverged=True)


def _no_search(arm: str, name: str, text: str) -> Claim:
    rule = (
        "Per width and seed, the driven rate from the worst of its initial rates against the best planned schedule "
        "from its best: the difference of log10 training loss, as a share of the decades by which the latter has "
        f"lowered the loss since the start, has a mean below {GIVEN_UP:g} at every width, with intervals that hold "
        "together (Bonferroni). It does not hold too where the schedule loses from every initial rate alike. For a "
        "driven rate this is a mild test: it is measured before the first step, so that the initial rate only bounds "
        "how it may grow from there."
    )
    return Claim(name, text, rule, partial(needs_no_rate, arm), of_diverged=True)


CLAIMS = (*(_lower(*one) for one in LOWER), *(_no_search(*one) for one in NO_SEARCH))
