"""Numbers as people write and measure them."""

import math


def round_significant(value: float, digits: int) -> float:
    """`value` with so many significant digits: 5837 -> 5800 for 2."""
    return round(value, digits - 1 - math.floor(math.log10(value)))


def number_word(value: float) -> str:
    """A number as it stands in a sentence: whole numbers without a point, at most six digits."""
    return f"{value:.6g}" if value < 999_999.5 else f"{value:.0f}"
