"""Formatting of sizes and durations. Unknown values (NaN) are dashes."""

from math import isnan

UNKNOWN = "—"


def duration(seconds: float) -> str:
    """0.42 -> "0.4 s", 9.2 -> "9 s", 125 -> "2 min 5 s", 120 -> "2 min", 3720 -> "1 h 2 min".

    To the second up to ten minutes, to the minute beyond.
    """
    if isnan(seconds):
        return UNKNOWN
    if seconds < 0.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, minutes = whole // 3600, whole % 3600 // 60
    parts = [(hours, "h"), (minutes, "min"), (whole % 60 if whole < 600 else 0, "s")]
    return " ".join(f"{count} {unit}" for count, unit in parts if count)


def megabytes(size_bytes: float) -> str:
    """10_400_000 -> "10.4 MB", in decimal units from B to TB."""
    return in_largest_unit(size_bytes, ("B", "kB", "MB", "GB", "TB"))


def in_largest_unit(amount: float, units: tuple[str, ...]) -> str:
    """Format an amount in the unit that gives one to three digits before the decimal point."""
    if isnan(amount):
        return UNKNOWN
    rank = 0
    while abs(amount) >= 999.5 and rank < len(units) - 1:
        amount, rank = amount / 1000, rank + 1
    return f"{one_decimal(amount) if rank else round(amount)} {units[rank]}".strip()


def one_decimal(number: float) -> str:
    """10.44 -> "10.4", 104.4 -> "104"."""
    return f"{number:.1f}" if abs(number) < 99.95 else f"{number:,.0f}"
