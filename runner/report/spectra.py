"""Spectra of the Hessian at the ends of training: a row for each start, and what is claimed of them."""

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from runner.report.drawing import eigenvalue_histogram
from runner.report.statistics import Interval, above, all_of, below, median, proportion
from runner.report.study import Finding, Runs
from runner.report.style import PALETTE

PAPER = "Singularity of the Hessian in Deep Learning (Sagun, Bottou, LeCun)"
BLOBS = (
    "2-k-k-2 ReLU networks with biases (k² + 6k + 2 parameters), 100 points of two Gaussians at (1, 1) and (-1, -1) "
    "with standard deviation 0.3, cross-entropy, full-batch gradient descent at rate 0.5 from starts on the sphere of "
    "radius 0.1 √n to |g| < 1e-4."
)
ZERO = 0.01  # share of the largest eigenvalue up to which one counts as near zero
LARGE = 0.1  # share of the largest eigenvalue above which the size of one counts as large
FAINT = 1e-3  # a smaller one, by which eigenvalues are counted that the first one hides
STAYED = 0.97  # share of ln(classes), the loss of a network that tells them by nothing, above which a start has stayed
ISOLATED = 3.0  # how many times the third eigenvalue the second has to be
NAMES = {"width": "k", "dataset.std": "σ"}
START = ["run", "replica"]


def eigenvalues(runs: Runs, *config: str, step: str = "last", classes: int = 2) -> pd.DataFrame:
    """The rows of hessian.csv of the Hessian H at each start's `first` or `last` step; with the columns `outcome` and
    `train_loss` of `ends`."""
    rows = runs.table("hessian", *config)
    rows = rows[(rows["matrix"] == "H") & (rows["on"] == "batch")]
    steps = rows.groupby(START)["step"]
    shown = rows[rows["step"] == steps.transform({"first": "min", "last": "max"}[step])]
    return shown.merge(ends(runs, classes)[[*START, "outcome", "train_loss"]], on=START)


def ends(runs: Runs, classes: int = 2) -> pd.DataFrame:
    """The last row of metrics.csv of each start, and its `outcome`: `plateau` where the loss has stayed at ln(classes),
    else `converged` where the gradient is below `until.grad_norm`, else `on its way`."""
    rows = runs.table("metrics", "until.grad_norm")
    rows = rows[rows["step"] == rows.groupby(START)["step"].transform("max")].copy()
    small = rows["grad_norm"] < rows["until.grad_norm"].astype(float)
    plateau = rows["train_loss"] > STAYED * math.log(classes)
    rows["outcome"] = np.select([plateau, small], ["plateau", "converged"], "on its way")
    return rows


@lru_cache(maxsize=8)
def summaries(runs: Runs, *config: str, step: str = "last", classes: int = 2) -> pd.DataFrame:
    """A row for each start: its config's values, its outcome, and `summary` of its eigenvalues."""
    rows = eigenvalues(runs, *config, step=step, classes=classes)
    named = [*START, "seed", "width", *config, "outcome", "train_loss"]
    found = [
        {**group.iloc[0][list(dict.fromkeys(named))], **summary(group["value"].to_numpy())}
        for _, group in rows.groupby(START, sort=False)
    ]
    return pd.DataFrame(found)


def near_zero_of(rows: pd.DataFrame) -> float:
    """ZERO times the median over starts of the largest eigenvalue, to one digit: where an axis becomes linear."""
    return float(f"{ZERO * rows.groupby(START)['value'].max().median():.0e}")


def histogram(axis: Any, rows: pd.DataFrame, zero: float, colour: Any, title: str) -> None:
    """The eigenvalues of all starts, with each one's two largest in another colour."""
    eigenvalue_histogram(axis, rows["value"], zero, color=colour)
    edges = sorted(
        {patch.get_x() for patch in axis.patches} | {axis.patches[-1].get_x() + axis.patches[-1].get_width()}
    )
    largest = rows.sort_values("value").groupby(START)["value"].tail(2)
    axis.hist(largest, bins=edges, color=PALETTE[5], label="$\\lambda_1, \\lambda_2$ of each start")
    axis.set_title(title, pad=20)


def summary(values: np.ndarray) -> dict[str, float]:
    """Of one spectrum: its size n, the four largest eigenvalues and the smallest; how many stand `isolated` at its top,
    and the ratio of the second to the third (`gap`); how many are `large`, beyond LARGE times the largest in size; the
    shares near zero, below it and below -FAINT times the largest; that of the two largest in the sum of squares; and
    |smallest| / largest (`depth`).

    Isolated are those above the widest gap: the one of the first five ratios of an eigenvalue to the next that is the
    largest, where eigenvalues near zero all count as ZERO times the largest.
    """
    ordered = np.sort(values)[::-1]
    top = ordered[0]
    floored = np.maximum(ordered[:6], ZERO * top)
    return {
        "n": len(ordered),
        **{f"lambda{place}": value for place, value in enumerate(ordered[:4], 1)},
        "smallest": ordered[-1],
        "isolated": int(np.argmax(floored[:-1] / floored[1:])) + 1,
        "gap": ordered[1] / max(ordered[2], ZERO * top),
        "large": float(np.sum(np.abs(ordered) > LARGE * top)),
        "near_zero": float(np.mean(np.abs(ordered) <= ZERO * top)),
        "negative": float(np.mean(ordered < -ZERO * top)),
        "faintly_negative": float(np.mean(ordered < -FAINT * top)),
        "depth": -ordered[-1] / top,
        "top_two": float((ordered[:2] ** 2).sum() / (ordered**2).sum()),
    }


def converged(found: pd.DataFrame) -> pd.DataFrame:
    return found[found["outcome"] == "converged"]


def judged_by(found: pd.DataFrame, by: str, column: str) -> dict[str, Interval]:
    """The median of `column` over the converged starts of each setting."""
    return {setting(by, value): median(rows[column]) for value, rows in converged(found).groupby(by)}


def setting(by: str, value: Any) -> str:
    """How a setting reads in a sentence."""
    if by == "init._target_":
        return {"Sphere": "sphere", "Independent": "independent"}[str(value).rsplit(".", 1)[-1]]
    return f"{NAMES.get(by, by)} = {value:g}"


def listed(found: dict[str, Interval]) -> str:
    return "; ".join(f"{name}: {one}" for name, one in found.items())


def two_isolated(found: pd.DataFrame, by: str) -> Finding:
    """Two eigenvalues at the top, and not another number."""
    shares = {
        setting(by, value): proportion((rows["isolated"] == 2).sum(), len(rows))
        for value, rows in converged(found).groupby(by)
    }
    gaps = judged_by(found, by, "gap")
    outcome = all_of([above(one, 0.5) for one in shares.values()] + [above(one, ISOLATED) for one in gaps.values()])
    said = f"Share of converged starts whose widest gap follows the second eigenvalue: {listed(shares)}. "
    return Finding(outcome, f"{said}Median of second to third: {listed(gaps)}.")


TWO_ISOLATED = (
    "Of the ratios of neighbours among the six largest eigenvalues, or the five that are kept (values below 1 % of the "
    "largest count as 1 %), "
    "that of the second to the third is the widest in more than half of the converged starts (Wilson interval), and "
    f"its median lies above {ISOLATED:g}; in every setting."
)


def rest_near_zero(found: pd.DataFrame, by: str) -> Finding:
    shares = judged_by(found, by, "near_zero")
    said = f"Median share of eigenvalues with |λ| ≤ λ₁/100: {listed(shares)}."
    return Finding(all_of(above(one, 0.5) for one in shares.values()), said)


REST_NEAR_ZERO = (
    "The median share over converged starts of eigenvalues whose size is at most 1 % of the largest lies above one "
    "half in every setting."
)


def few_negative(found: pd.DataFrame, by: str) -> Finding:
    """Some, not many, and small ones."""
    some = {
        setting(by, value): proportion((rows["negative"] > 0).sum(), len(rows))
        for value, rows in converged(found).groupby(by)
    }
    shares, depths = judged_by(found, by, "negative"), judged_by(found, by, "depth")
    faint = judged_by(found, by, "faintly_negative")
    outcomes = [above(one, 0.5) for one in some.values()]
    outcomes += [below(one, 0.1) for one in (*shares.values(), *depths.values())]
    said = (
        f"Share of converged starts with eigenvalues below -λ₁/100: {listed(some)}. Median share of such eigenvalues: "
        f"{listed(shares)} (below -λ₁/1000: {listed(faint)}). Median |smallest| / largest: {listed(depths)}."
    )
    return Finding(all_of(outcomes), said)


FEW_NEGATIVE = (
    "More than half of the converged starts have an eigenvalue below -λ₁/100, not near zero; the median share of such "
    "eigenvalues, and the median of |smallest| / largest, lie below 0.1; in every setting."
)


def outcomes(runs: Runs, by: str) -> str:
    """How many starts converged, stayed on the plateau or were still on their way, in each setting: in a sentence."""
    return "; ".join(f"{name}: {said}" for name, said in _counted(runs, by)) + "."


def _counted(runs: Runs, by: str) -> Iterator[tuple[str, str]]:
    found = summaries(runs, *([] if by == "width" else [by]))
    for value, rows in found.groupby(by):
        counts = rows["outcome"].value_counts()
        others = {"plateau": "stayed at the loss ln 2", "on its way": "still had a larger gradient at the last step"}
        said = [f"{counts[name]} {text}" for name, text in others.items() if name in counts]
        yield setting(by, value), ", ".join([f"{counts.get('converged', 0)} of {len(rows)} starts converged", *said])
