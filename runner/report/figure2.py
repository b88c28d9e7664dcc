"""What Figure 2 of the main paper claims of curvature along training, judged over any settings."""

from collections.abc import Callable, Iterable

import pandas as pd

from runner.report.statistics import (
    LEVEL,
    Interval,
    Outcome,
    above,
    all_of,
    below,
    bootstrap_slope,
    correlation,
    mean,
    share,
    trend,
)
from runner.report.study import Finding

SELDOM = 0.1  # share of steps with negative curvature
CLOSE = 0.9  # rank correlation
STARTS = 20  # of which a mean tells something
MANY = 6  # settings of which each is still told
EARLY = 100  # steps
RUN = ["seed", "replica"]

SELDOM_RULE = (
    f"The share of steps with g'Hg < 0, a mean over seeds, lies below {SELDOM:g} in every setting, with intervals that "
    "hold together (Bonferroni). It is of the whole run, and goes with its length: negative steps lie early."
)
FOLLOWS_RULE = (
    f"Spearman's rank correlation of their changes from one step to the next (of their values it would be high by "
    f"their common trend alone), a mean over seeds, lies above {CLOSE:g} in every setting, with intervals that hold "
    "together (Bonferroni). It is of the whole run, and goes with its length: the parts differ early."
)

SELDOMER_RULE = (
    "The change of the share of steps with g'Hg < 0 for each doubling of the width, fitted for each start, lies below "
    "zero."
)
STARTS_RULE = (
    "The log-log slope over width of the mean |g'H_r g| / g'g at step 0 lies below zero (bootstrap over starts). Left "
    f"open below {STARTS} starts of each width: single draws show any order."
)


def negative_share(metrics: pd.DataFrame, by: str) -> dict[object, Interval]:
    return _over_runs(metrics, by, lambda rows: float((rows["split_gHg"] < 0).mean()), share)


def alike(metrics: pd.DataFrame, by: str) -> dict[object, Interval]:
    return _over_runs(metrics, by, _correlation_of_changes, correlation)


def seldom_negative(metrics: pd.DataFrame, by: str, label: str) -> Finding:
    """Claim (a)."""
    found = negative_share(metrics, by)
    outcomes = [below(one, SELDOM) for one in found.values()]
    said = f"Share of steps with g'Hg < 0: {_said(found, label, outcomes)}; {_early(metrics, by, negative_share)}."
    return Finding(all_of(outcomes), said)


def follows(metrics: pd.DataFrame, by: str, label: str) -> Finding:
    """Claim (b)."""
    found = alike(metrics, by)
    outcomes = [above(one, CLOSE) for one in found.values()]
    said = f"{_said(found, label, outcomes)}; {_early(metrics, by, alike)}"
    return Finding(all_of(outcomes), f"Rank correlation of changes of g'Hg and of g'Gg: {said}.")


def _early(metrics: pd.DataFrame, by: str, find: Callable[[pd.DataFrame, str], dict[object, Interval]]) -> str:
    """What the first steps say, since a share of a whole run goes with its length."""
    values = [one.value for one in find(metrics[metrics["step"] < EARLY], by).values()]
    shown = values if len(values) <= MANY else [min(values), max(values)]
    between = ", " if len(values) <= MANY else " to "
    return f"of the first {EARLY} steps: {between.join(f'{one:.2g}' for one in shown)}"


def seldomer(metrics: pd.DataFrame) -> Finding:
    """How the share of negative steps goes with the width."""
    whole, early = (_change_of_share(rows) for rows in (metrics, metrics[metrics["step"] < EARLY]))
    said = f"Share of steps with g'Hg < 0, change for each doubling of the width: {whole}"
    return Finding(below(whole), f"{said}; of the first {EARLY} steps {early}.")


def _change_of_share(metrics: pd.DataFrame) -> Interval:
    rows = metrics.dropna(subset=["split_gHg"])
    shares = (rows["split_gHg"] < 0).groupby([rows["width"], rows["seed"] + rows["replica"]]).mean()
    return trend(shares.rename_axis(["width", "start"]).reset_index(name="share"), "share", "width", "start", log=False)


def starts_closer(metrics: pd.DataFrame) -> Finding:
    """Claim (c)."""
    start = at_start(metrics)
    groups = dict(list(start.groupby("width")["size"]))
    slope = bootstrap_slope(list(groups.values()), list(groups), lambda x: x.mean(axis=-1))
    means = ", ".join(f"{mean(sizes)} at width {width:g} ({len(sizes)} starts)" for width, sizes in groups.items())
    said = f"Mean |g'H_r g| / g'g at the start: {means}; log-log slope {slope}."
    return Finding(below(slope) if slope.n >= STARTS else Outcome.UNDECIDED, said)


def at_start(metrics: pd.DataFrame) -> pd.DataFrame:
    """The rows of step 0 with the `size` of the residual part per g'g."""
    rows = metrics[metrics["step"] == 0]
    return rows.assign(size=rows["split_gHrg"].abs() / rows["grad_norm"] ** 2)


def _correlation_of_changes(rows: pd.DataFrame) -> float:
    changes = rows.sort_values("step")[["split_gHg", "split_gGg"]].diff()
    return float(changes.corr("spearman").iloc[0, 1])


def _over_runs(
    metrics: pd.DataFrame,
    by: str,
    find: Callable[[pd.DataFrame], float],
    average: Callable[[Iterable[float], float], Interval] = mean,
) -> dict[object, Interval]:
    """The mean over runs of what is found in each, for each setting, at the level at which all of them hold together
    (Bonferroni)."""
    settings = list(metrics.dropna(subset=["split_gHg"]).groupby(by, sort=False))
    level = 1 - (1 - LEVEL) / max(len(settings), 1)
    return {setting: average([find(one) for _, one in rows.groupby(RUN)], level) for setting, rows in settings}


def _said(found: dict[object, Interval], label: str, outcomes: list[Outcome]) -> str:
    """Each setting; of many only those that decide against the claim, and how many there are of each outcome."""
    several = len(found) > MANY
    shown = [
        f"{one} {label.format(setting)}"
        for (setting, one), outcome in zip(found.items(), outcomes, strict=True)
        if not several or outcome == Outcome.FAILS
    ]
    counts = ", ".join(f"{outcomes.count(one)} {one}" for one in Outcome if one in outcomes)
    values = [one.value for one in found.values()]
    if several:
        shown.insert(0, f"from {min(values):.3g} to {max(values):.3g} in {len(found)} settings ({counts})")
    return ", ".join(shown)
