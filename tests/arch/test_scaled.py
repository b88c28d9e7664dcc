import pytest

from runner.arch.scaled import scaled
from runner.errors import BadInput


@pytest.mark.parametrize(
    ("base", "width", "units"),
    [
        (50, 1, 50),
        (50, 4.0, 200),
        (16, 0.25, 4),
        (16, 0.01, 1),  # at least one
        (50, 0.15, 8),  # 7.5: halves round up,
        (50, 0.05, 3),  # 2.5: not to even,
        (50, 0.29, 15),  # and 14.5 is a half, though 50 * 0.29 = 14.499999999999998 in floats
        (64, 1.3, 83),
    ],
)
def test_rounds_to_the_nearest_with_halves_up(base: int, width: float, units: int) -> None:
    assert scaled(base, width) == units


@pytest.mark.parametrize("width", [0, -1, float("nan"), float("inf")])
def test_refuses_widths_that_are_none(width: float) -> None:
    with pytest.raises(BadInput, match=r"^width should be a positive number, found"):
        scaled(50, width)


def test_refuses_an_empty_base() -> None:
    with pytest.raises(BadInput, match="base_width"):
        scaled(0, 1)
