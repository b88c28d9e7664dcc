"""Widths of layers: a network's base width times the run's `width`."""

import math
from decimal import ROUND_HALF_UP, Decimal

from runner.errors import BadInput


def scaled(base: int, width: float) -> int:
    """`base * width` rounded to the nearest integer (halves up), at least 1.

    The product is taken in decimals, as the user wrote the width: 50 * 0.29 is 14.5, which floats miss.
    """
    if not (0 < width < math.inf):
        raise BadInput(f"width should be a positive number, found {width}: choose for example width=1 or width=0.5.")
    if base < 1:
        raise BadInput(f"arch.base_width should be at least 1, found {base}.")
    return max(1, int((Decimal(str(width)) * base).to_integral_value(ROUND_HALF_UP)))
