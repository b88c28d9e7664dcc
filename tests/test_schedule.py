import math

import pytest

from runner.errors import BadInput
from runner.schedule import Constant, Cosine, Halving, Schedule

S = 500  # steps of an epoch


def test_constant() -> None:
    assert {Constant().factor(step, S) for step in (0, 1, 10**6)} == {1.0}


@pytest.mark.parametrize("steps_per_epoch", [1, 7, 500, 1000])
def test_halving_happens_exactly_at_the_milestones(steps_per_epoch: int) -> None:
    schedule = Halving([40, 80, 120])
    for count, milestone in enumerate((40, 80, 120)):
        first = milestone * steps_per_epoch
        assert schedule.factor(first - 1, steps_per_epoch) == 0.5**count
        assert schedule.factor(first, steps_per_epoch) == 0.5 ** (count + 1)
    assert schedule.factor(10**9, steps_per_epoch) == 0.125


def test_halving_at_fractions_of_an_epoch() -> None:
    """0.7 * 10 is 7.000000000000001 in floats; the milestone is step 7 all the same."""
    schedule = Halving([0.7], gamma=0.1)
    assert (schedule.factor(6, 10), schedule.factor(7, 10)) == (1.0, 0.1)


def test_cosine_goes_from_one_to_its_final_value() -> None:
    for final in (0.0, 0.1):
        schedule = Cosine(epochs=3, final=final)
        assert schedule.factor(0, S) == 1.0
        assert schedule.factor(3 * S // 2, S) == pytest.approx((1 + final) / 2)
        assert schedule.factor(3 * S, S) == final
        assert schedule.factor(5 * S, S) == final
        factors = [schedule.factor(step, S) for step in range(3 * S + 1)]
        assert factors == sorted(factors, reverse=True)
        third = final + (1 - final) * (1 + math.cos(math.pi / 3)) / 2
        assert schedule.factor(S, S) == pytest.approx(third)


def test_cosine_over_steps_wins_over_epochs() -> None:
    schedule = Cosine(epochs=3, steps=10)
    assert schedule.factor(5, S) == pytest.approx(0.5)
    assert schedule.factor(10, S) == 0.0


def test_cosine_of_a_run_without_updates_keeps_the_rate() -> None:
    assert Cosine(epochs=0).factor(0, S) == 1.0
    assert Cosine(epochs=3, steps=0).factor(0, S) == 1.0


@pytest.mark.parametrize("warmup", [2.0, 0.01, 0.3])
@pytest.mark.parametrize(
    "make", [Constant, lambda warmup: Halving([40], warmup=warmup), lambda warmup: Cosine(9, warmup=warmup)]
)
def test_warmup_rises_linearly_from_zero(make: type[Constant], warmup: float) -> None:
    schedule: Schedule = make(warmup=warmup)
    last = round(warmup * S)
    assert schedule.factor(0, S) == 0.0
    for step in (1, last // 2, last - 1):
        assert schedule.factor(step, S) == pytest.approx(step / last)
    assert schedule.factor(last, S) == 1.0


def test_milestones_count_from_the_start_and_the_cosine_from_the_end_of_the_warmup() -> None:
    assert Halving([40], warmup=5).factor(40 * S, S) == 0.5
    assert Cosine(epochs=10, warmup=2).factor(6 * S, S) == pytest.approx(0.5)
    assert Cosine(epochs=10, warmup=2).factor(10 * S, S) == 0.0


def test_a_warmup_longer_than_the_run_is_cut_off() -> None:
    schedule = Cosine(epochs=1, warmup=2)
    assert schedule.factor(S, S) == 0.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Constant(warmup=-1), r"schedule\.warmup, in epochs, should be a number >= 0, found -1"),
        (
            lambda: Halving([40, -80]),
            r"schedule\.milestones, in epochs, should be numbers >= 0, found \[40, -80\]",
        ),
        (lambda: Halving([40], gamma=0), r"schedule\.gamma should be a number > 0, found 0"),
        (lambda: Cosine(1, final=-0.1), r"schedule\.final should be a number >= 0, found -0.1"),
        (lambda: Cosine(1, final=math.nan), r"schedule\.final"),
    ],
)
def test_refuses(make: type[Constant], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        make()
