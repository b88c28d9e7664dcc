"""Uncertainty over independent runs, and what it decides."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import pandas as pd
from scipy import stats

LEVEL = 0.95
FEW = 6  # values, below which nothing is known of how they spread, unless a law is assumed and they differ


class Outcome(StrEnum):
    """What the data say about a claim, at the scale at which they were made."""

    HOLDS = "holds"
    FAILS = "does not hold"
    UNDECIDED = "undecided at this scale"


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval, of 95 % unless a rule says otherwise, from n independent values;
    infinite where n is too small."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        if math.isinf(self.low) or math.isinf(self.high):
            return f"{self.value:.3g} (n = {self.n})"
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


def mean(values: Iterable[float], level: float = LEVEL) -> Interval:
    """Student's t-interval of the mean; not-finite values are left out. A few values that are equal tell nothing of
    their spread: infinite."""
    x = finite(values)
    if len(x) < 2 or (len(x) < FEW and equal(x)):
        return Interval(float(x[0]) if len(x) else math.nan, -math.inf, math.inf, len(x))
    half = float(stats.t.ppf((1 + level) / 2, len(x) - 1) * x.std(ddof=1) / math.sqrt(len(x)))
    return Interval(float(x.mean()), float(x.mean()) - half, float(x.mean()) + half, len(x))


def share(values: Iterable[float], level: float = LEVEL) -> Interval:
    """The mean of shares, one of each run, whose interval ends where shares do."""
    return _mean_between(0.0, 1.0, values, level)


def correlation(values: Iterable[float], level: float = LEVEL) -> Interval:
    """The mean of correlation coefficients, one of each run, whose interval ends where these do."""
    return _mean_between(-1.0, 1.0, values, level)


def _mean_between(low: float, high: float, values: Iterable[float], level: float) -> Interval:
    """Three values at the same bound are no chance."""
    x = finite(values)
    if len(x) > 2 and set(x) in ({low}, {high}):
        return Interval(float(x[0]), float(x[0]), float(x[0]), len(x))
    return bounded(mean(x, level), low, high)


def bounded(found: Interval, low: float, high: float) -> Interval:
    """The interval of what lies between two bounds, which ends there; an infinite one tells nothing, and stays."""
    if math.isinf(found.low):
        return found
    return replace(found, low=max(found.low, low), high=min(found.high, high))


def median(values: Iterable[float], level: float = LEVEL) -> Interval:
    """The median with the interval between order statistics that covers it in at least `level` of all samples
    (binomial, no law is assumed); infinite below six values."""
    x = np.sort(finite(values))
    if not len(x):
        return Interval(math.nan, -math.inf, math.inf, 0)
    rank = int(
        stats.binom.ppf((1 - level) / 2, len(x), 0.5)
    )  # P(fewer than `rank` of n below the median) < (1-level)/2
    low, high = (x[rank - 1], x[-rank]) if rank >= 1 else (-math.inf, math.inf)
    return Interval(float(np.median(x)), float(low), float(high), len(x))


def variance(values: Iterable[float], level: float = LEVEL) -> Interval:
    """The variance, with the large-sample interval from the fourth moment (right for laws that are not normal too)."""
    x = finite(values)
    if len(x) < 8:
        return Interval(float(x.var(ddof=1)) if len(x) > 1 else math.nan, -math.inf, math.inf, len(x))
    spread = mean((x - x.mean()) ** 2 * len(x) / (len(x) - 1), level)
    return Interval(spread.value, max(spread.low, 0.0), spread.high, len(x))


def proportion(hits: int, trials: int, level: float = LEVEL) -> Interval:
    """Wilson's interval of a probability, from independent trials."""
    if not trials:
        return Interval(math.nan, -math.inf, math.inf, 0)
    found = stats.binomtest(int(hits), int(trials)).proportion_ci(level, method="wilson")
    return Interval(hits / trials, float(found.low), float(found.high), int(trials))


def bootstrap(rows: np.ndarray, statistic: Callable[[np.ndarray], float], draws: int = 1000) -> Interval:
    """A statistic of independent rows (n, …), with its percentile bootstrap interval; infinite below six rows."""
    if len(rows) < FEW:
        return Interval(statistic(rows) if len(rows) else math.nan, -math.inf, math.inf, len(rows))
    generator = np.random.default_rng(0)
    drawn = [statistic(rows[generator.integers(len(rows), size=len(rows))]) for _ in range(draws)]
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(statistic(rows)), float(low), float(high), len(rows))


def bootstrap_slope(
    groups: Sequence[Iterable[float]],
    x: Sequence[float],
    statistic: Callable[[np.ndarray], np.ndarray],
    draws: int = 1000,
) -> Interval:
    """The least-squares slope of log `statistic` of each group against log x, with its percentile bootstrap interval,
    infinite where a group has less than six values. `statistic` takes the last axis of an array of samples, and is
    positive."""
    if len(x) < 2:
        return Interval(math.nan, -math.inf, math.inf, len(x))
    generator = np.random.default_rng(0)
    samples = [finite(group) for group in groups]
    fitted = float(_slope(np.log(x), np.log([statistic(one) for one in samples])))
    if min(map(len, samples)) < FEW:
        return Interval(fitted, -math.inf, math.inf, min(map(len, samples)))
    drawn = [statistic(one[generator.integers(len(one), size=(draws, len(one)))]) for one in samples]
    low, high = np.quantile(_slope(np.log(x), np.log(np.stack(drawn))), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(fitted, float(low), float(high), min(map(len, samples)))


def rank_correlation(frame: pd.DataFrame, x: str, y: str, within: str | Sequence[str], over: str) -> Interval:
    """The correlation of the ranks of x and y, taken within each cell, so that what sets the cells apart counts for
    nothing, with its bootstrap interval over the values of `over`. Cells in which one of the two is the same everywhere
    add nothing."""
    cells = frame.groupby(within if isinstance(within, str) else list(within)).ngroup()
    ranks = frame[[x, y]].groupby(cells).rank(pct=True)
    ranks -= ranks.groupby(cells).transform("mean")
    ranks[ranks.groupby(cells).transform("std").eq(0).any(axis=1)] = 0.0
    groups = [rows.to_numpy() for _, rows in ranks.groupby(frame[over])]
    sums = [[(a * b).sum(), (a * a).sum(), (b * b).sum()] for a, b in (rows.T for rows in groups)]
    return bootstrap(np.array(sums), _pooled_correlation)


def _pooled_correlation(sums: np.ndarray) -> float:
    """From sums (groups, 3) of xy, xx and yy, with x and y centred."""
    xy, xx, yy = sums.sum(axis=0)
    return float(xy / np.sqrt(xx * yy)) if xx * yy > 0 else math.nan


def difference(first: Interval, second: Interval) -> Interval:
    """second - first of two independent estimates (Newcombe's for proportions with Wilson's intervals)."""
    value = second.value - first.value
    low = math.hypot(first.high - first.value, second.value - second.low)
    high = math.hypot(first.value - first.low, second.high - second.value)
    return Interval(value, value - low, value + high, min(first.n, second.n))


def trend(frame: pd.DataFrame, value: str, by: str, over: str = "seed", log: bool = True) -> Interval:
    """How `value` goes with `by`: the least-squares slope for each `over` (each seed by itself, so that what the seeds
    have in common drops out), and the t-interval of their mean. Both axes are logarithmic; with `log=False` only `by`
    is, to base 2: the change for each doubling, for values of either sign. A seed with a value that has no logarithm
    has no slope, and is left out."""
    slopes = []
    for _, rows in frame.groupby(over):
        means = rows.groupby(by)[value].mean().dropna()
        if len(means) > 1:
            x = np.log2(means.index.to_numpy(float))
            with np.errstate(divide="ignore", invalid="ignore"):
                y = np.log2(means.to_numpy()) if log else means.to_numpy()
                slopes.append(float(_slope(x, y)))
    return mean(slopes)


def above(interval: Interval, threshold: float = 0.0) -> Outcome:
    """Holds where the whole interval lies above, fails where it lies below."""
    if interval.low > threshold:
        return Outcome.HOLDS
    return Outcome.FAILS if interval.high < threshold else Outcome.UNDECIDED


def below(interval: Interval, threshold: float = 0.0) -> Outcome:
    """Holds where the whole interval lies below, fails where it lies above."""
    if interval.high < threshold:
        return Outcome.HOLDS
    return Outcome.FAILS if interval.low > threshold else Outcome.UNDECIDED


def within(interval: Interval, low: float, high: float) -> Outcome:
    """Holds where the interval lies between two bounds, fails where it lies beyond one of them."""
    if low <= interval.low and interval.high <= high:
        return Outcome.HOLDS
    return Outcome.FAILS if interval.high < low or interval.low > high else Outcome.UNDECIDED


def all_of(outcomes: Iterable[Outcome]) -> Outcome:
    """Holds if all do, fails if one does; undecided without any."""
    found = list(outcomes)
    if Outcome.FAILS in found:
        return Outcome.FAILS
    return Outcome.HOLDS if found and set(found) == {Outcome.HOLDS} else Outcome.UNDECIDED


def agreed(outcomes: Iterable[Outcome]) -> Outcome:
    """The outcome on which all of them agree; undecided where they do not, or without any."""
    found = set(outcomes)
    return found.pop() if len(found) == 1 else Outcome.UNDECIDED


def finite(values: Iterable[float]) -> np.ndarray:
    x = np.asarray(list(values), dtype=float)
    return x[np.isfinite(x)]


def equal(x: np.ndarray) -> bool:
    """Whether they are, but for rounding."""
    return float(np.ptp(x)) <= 1e-9 * float(np.abs(x).max())


def _slope(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Least-squares slope of y (points, …) against x (points,)."""
    centred = np.asarray(x) - np.mean(x)
    return np.tensordot(centred, np.asarray(y), axes=1) / (centred @ centred)
