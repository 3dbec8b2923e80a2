"""Formatting of numbers. Unknown values (NaN) are dashes."""

from math import isnan

from engine.quantities import UNKNOWN, duration, in_largest_unit, megabytes, one_decimal

__all__ = [
    "UNKNOWN",
    "change",
    "count",
    "duration",
    "megabytes",
    "named_quality",
    "percent",
    "quality_number",
    "two_decimals",
]


def count(number: float) -> str:
    """5_200_000 -> "5.2 M", 1_500_000_000 -> "1.5 B"."""
    return in_largest_unit(number, ("", "k", "M", "B", "T"))


def percent(share: float) -> str:
    """0.031 -> "3.1%"; below one percent with two significant digits: 0.00042 -> "0.042%"."""
    return UNKNOWN if isnan(share) else f"{short_number(100 * share)}%"


def quality_number(name: str, value: float) -> str:
    """("accuracy", 0.634) -> "63.4%", ("perplexity", 12.3456) -> "12.35"."""
    return percent(value) if name == "accuracy" else f"{value:.4g}"


def named_quality(name: str, value: float) -> str:
    """("accuracy", 0.634) -> "accuracy 63.4%"; any other name is perplexity."""
    known = "accuracy" if name == "accuracy" else "perplexity"
    return f"{known} {quality_number(name, value)}"


def change(before: float, after: float) -> str:
    """(18.3, 18.9) -> "+3.3%". Unknown if the value before is zero."""
    if isnan(before) or isnan(after) or before == 0:
        return UNKNOWN
    grown = 100 * (after - before) / abs(before)
    return "±0%" if abs(grown) < 0.05 else f"{'+' if grown > 0 else '-'}{one_decimal(abs(grown))}%"


def two_decimals(number: float | None) -> str:
    """4.5 -> "4.50"; a dash if an older record has no value."""
    return UNKNOWN if number is None or isnan(number) else f"{number:.2f}"


def short_number(number: float) -> str:
    return (
        f"{number:.0f}"
        if number in (0, 100)
        else f"{number:.2g}"
        if abs(number) < 0.95
        else one_decimal(number)
    )
