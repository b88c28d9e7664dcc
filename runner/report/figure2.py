"""What Figure 2 of the main paper claims of curvature along training, judged over any settings."""

from collections.abc import Callable

import pandas as pd

from runner.report.statistics import Interval, above, all_of, below, mean
from runner.report.study import Finding

SELDOM = 0.1  # share of steps with negative curvature
CLOSE = 0.9  # rank correlation
RUN = ["seed", "replica"]

SELDOM_RULE = f"The share of steps with g'Hg < 0, a mean over seeds, lies below {SELDOM:g} in every setting."
FOLLOWS_RULE = (
    f"Spearman's rank correlation of their changes from one step to the next (of their values it would be high by "
    f"their common trend alone), a mean over seeds, lies above {CLOSE:g} in every setting."
)


def seldom_negative(metrics: pd.DataFrame, by: str, label: str) -> Finding:
    """Claim (a)."""
    found = _over_runs(metrics, by, lambda rows: float((rows["split_gHg"] < 0).mean()))
    said = _said(found, label)
    return Finding(all_of(below(one, SELDOM) for one in found.values()), f"Share of steps with g'Hg < 0: {said}.")


def follows(metrics: pd.DataFrame, by: str, label: str) -> Finding:
    """Claim (b)."""
    found = _over_runs(metrics, by, _correlation_of_changes)
    said = _said(found, label)
    return Finding(
        all_of(above(one, CLOSE) for one in found.values()), f"Rank correlation of changes of g'Hg and of g'Gg: {said}."
    )


def _correlation_of_changes(rows: pd.DataFrame) -> float:
    changes = rows.sort_values("step")[["split_gHg", "split_gGg"]].diff()
    return float(changes.corr("spearman").iloc[0, 1])


def _over_runs(metrics: pd.DataFrame, by: str, find: Callable[[pd.DataFrame], float]) -> dict[object, Interval]:
    """The mean over runs of what is found in each, for each setting."""
    measured = metrics.dropna(subset=["split_gHg"])
    return {
        setting: mean(find(one) for _, one in rows.groupby(RUN)) for setting, rows in measured.groupby(by, sort=False)
    }


def _said(found: dict[object, Interval], label: str) -> str:
    return ", ".join(f"{one} {label.format(setting)}" for setting, one in found.items())
