"""Numbers as people read them: a real minus sign, and as many decimals as say something. Never imports torch."""

from collections.abc import Iterable
from math import floor, log10

MINUS = "\N{MINUS SIGN}"
DIGITS = 3  # of the largest number of a measure
MOST_DECIMALS = 6


def decimals_for(values: Iterable[float]) -> int:
    """Decimals that show three digits of the largest value, and whole numbers without any."""
    values = [abs(value) for value in values]
    largest = max(values, default=0)
    if not largest or all(float(value).is_integer() for value in values):
        return 0
    return max(0, min(MOST_DECIMALS, DIGITS - 1 - floor(log10(largest))))


def decimals_of(value: float) -> int:
    """Decimals that a published number has in its file."""
    return len(f"{value:.10g}".partition(".")[2])


def shown(value: float, decimals: int, sign: bool = False) -> str:
    """`sign`: a positive number gets a plus sign."""
    text = f"{value:+,.{decimals}f}"
    if not any(digit in "123456789" for digit in text):  # nothing is left of it: neither +0.0 nor -0.0
        return text[1:]
    return text.replace("-", MINUS) if value < 0 else text if sign else text[1:]


def span(low: float, high: float, decimals: int, sign: bool = False) -> str:
    return f"{shown(low, decimals, sign)} to {shown(high, decimals, sign)}"


def listed(words: list[str]) -> str:
    """One, two and three."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
