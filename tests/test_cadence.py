"""When things are due."""

import pytest

from runner.cadence import Cadence
from runner.errors import BadInput


def due(cadence: Cadence, steps: int, steps_per_epoch: int = 4) -> list[int]:
    return [step for step in range(steps + 1) if cadence.due(step, steps_per_epoch, steps)]


def test_each_kind_and_their_union() -> None:
    assert due(Cadence(every=5), 12) == [0, 5, 10]
    assert due(Cadence(every_epochs=2), 17) == [0, 8, 16]
    assert due(Cadence(at=(3, 7)), 10) == [3, 7]
    assert due(Cadence(ends=True), 9) == [0, 9]
    assert due(Cadence(), 9) == []
    assert due(Cadence(every=5, at=(3,), ends=True), 11) == [0, 3, 5, 10, 11]


def test_log_spacing_gives_the_rounded_powers() -> None:
    expected = sorted({round(10 ** (k / 3)) for k in range(13)})
    assert due(Cadence(per_decade=3), 10_000) == expected


@pytest.mark.parametrize(
    "cadence",
    [
        Cadence(),
        Cadence(every=1),
        Cadence(every=7),
        Cadence(every_epochs=3),
        Cadence(every=6, every_epochs=1),
        Cadence(every=6, every_epochs=2, per_decade=5, at=(6, 11, 11, 5000), ends=True),
        Cadence(per_decade=4, at=(1, 10, 13)),
        Cadence(per_decade=50),
        Cadence(at=(0, 3), ends=True),
    ],
)
@pytest.mark.parametrize("last", [0, 1, 2, 9, 10, 11, 60, 100, 999, 1000, 1001])
def test_the_count_is_that_of_the_steps_that_are_due(cadence: Cadence, last: int) -> None:
    assert cadence.count(4, last) == len(due(cadence, last))


@pytest.mark.parametrize("bad", [{"every": 0}, {"every_epochs": -1}, {"per_decade": 0}, {"at": (-1,)}])
def test_impossible_cadences_are_refused(bad: dict) -> None:
    with pytest.raises(BadInput, match=next(iter(bad))):
        Cadence(**bad)
