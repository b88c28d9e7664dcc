import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from runner.report.statistics import (
    Interval,
    Outcome,
    above,
    agreed,
    all_of,
    below,
    bootstrap_slope,
    mean,
    median,
    proportion,
    rank_correlation,
    share,
    trend,
    variance,
    within,
)


def test_mean_is_students() -> None:
    found = mean([1.0, 2.0, 4.0, math.nan])
    expected = stats.ttest_1samp([1.0, 2.0, 4.0], 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.n == 3


def test_a_single_value_decides_nothing() -> None:
    assert above(mean([5.0])) is below(mean([5.0])) is Outcome.UNDECIDED
    assert str(mean([5.0])) == "5 (n = 1)"


@pytest.mark.parametrize(
    ("interval", "draw", "truth"),
    [
        (mean, lambda g, n: g.exponential(size=n), 1.0),
        (median, lambda g, n: g.exponential(size=n), math.log(2)),
        (variance, lambda g, n: g.uniform(size=n), 1 / 12),
    ],
)
@pytest.mark.parametrize("n", [40, 200])
def test_intervals_cover_the_truth(interval: object, draw: object, truth: float, n: int) -> None:
    """About 95 of 100 times; 88 leaves room for skew at small n."""
    generator = np.random.default_rng(0)
    found = [interval(draw(generator, n)) for _ in range(500)]  # type: ignore[operator]
    covered = sum(one.low <= truth <= one.high for one in found)
    assert 440 <= covered <= 499


def test_shares_end_at_0_and_1() -> None:
    assert (share([0.9, 1.0, 0.95]).high, share([0.0, 0.0, 0.1]).low) == (1.0, 0.0)
    assert share([0.5]).high == math.inf
    assert share([0.75, 0.75, 0.75]).low == -math.inf  # equal by chance
    assert share([1.0, 1.0, 1.0]).low == 1.0
    assert share([1.0, 1.0]).low == -math.inf


def test_a_few_equal_values_tell_nothing_of_their_spread() -> None:
    for few in ([0.1] * 3, [0.1 + 0.2, 0.3, 0.3], [-5.0] * 5):  # 0.1 + 0.2 is not 0.3
        assert above(mean(few), -10) is Outcome.UNDECIDED
    assert mean([2.0] * 6).low == 2.0
    slopes = [bootstrap_slope([[2.0] * n, [1.0] * n], [1, 2], lambda x: x.mean(axis=-1)) for n in (5, 6)]
    assert [below(one) for one in slopes] == [Outcome.UNDECIDED, Outcome.HOLDS]


def test_ranks_are_compared_within_cells() -> None:
    """Between cells x and y go together, within them against each other, but for a cell where y does not vary."""
    rows = [(cell, n, 10 * cell + n, 10 * cell - n * (cell < 2)) for cell in range(3) for n in range(8)]
    frame = pd.DataFrame(rows, columns=["cell", "network", "x", "y"])
    assert rank_correlation(frame, "x", "y", "cell", over="network").value == pytest.approx(-1)
    shuffled = np.random.default_rng(0).permutation(8)
    one = frame[frame["cell"] == 0].assign(y=shuffled)
    expected = stats.spearmanr(one["x"], one["y"]).statistic
    assert rank_correlation(one, "x", "y", ["cell"], over="network").value == pytest.approx(expected)


def test_proportion_is_wilsons() -> None:
    found = proportion(1, 10)
    assert (found.low, found.high) == pytest.approx((0.0178762, 0.4041500), rel=1e-4)
    assert proportion(0, 100).low == 0
    assert proportion(0, 100).high > 0


def test_trend_is_the_slope_within_each_seed() -> None:
    rows = [(seed, width, 10.0**seed * width**1.5) for seed in range(6) for width in (1, 2, 4)]
    frame = pd.DataFrame(rows, columns=["seed", "width", "y"])
    found = trend(frame, "y", "width")
    assert found.value == pytest.approx(1.5)
    assert found.low == pytest.approx(1.5)
    doubled = frame.assign(y=3 * np.log2(frame["width"]) + frame["seed"])
    assert trend(doubled, "y", "width", log=False).value == pytest.approx(3)


def test_the_slope_of_medians() -> None:
    generator = np.random.default_rng(0)
    groups = [generator.lognormal(size=300) * width**-2.0 for width in (1, 2, 4, 8)]
    found = bootstrap_slope(groups, (1, 2, 4, 8), lambda x: np.median(x, axis=-1))
    assert found.low < -2 < found.high
    assert found.high - found.low < 0.5


def test_outcomes() -> None:
    high, low, open_ = Interval(2, 1, 3, 9), Interval(-2, -3, -1, 9), Interval(0, -1, 1, 9)
    assert [above(one) for one in (high, low, open_)] == [Outcome.HOLDS, Outcome.FAILS, Outcome.UNDECIDED]
    assert [below(one) for one in (high, low, open_)] == [Outcome.FAILS, Outcome.HOLDS, Outcome.UNDECIDED]
    assert within(high, 0, 4) is Outcome.HOLDS
    assert within(high, 4, 5) is Outcome.FAILS
    assert within(high, 2, 5) is Outcome.UNDECIDED
    assert all_of([Outcome.HOLDS, Outcome.HOLDS]) is Outcome.HOLDS
    assert all_of([Outcome.HOLDS, Outcome.UNDECIDED]) is Outcome.UNDECIDED
    assert all_of([Outcome.UNDECIDED, Outcome.FAILS]) is Outcome.FAILS
    assert all_of([]) is Outcome.UNDECIDED
    assert agreed([Outcome.FAILS, Outcome.FAILS]) is Outcome.FAILS
    assert agreed([Outcome.HOLDS, Outcome.FAILS]) is agreed([]) is Outcome.UNDECIDED
