"""Formatting of numbers. Unknown values (NaN) are dashes."""

from math import isnan

UNKNOWN = "—"


def megabytes(size_bytes: float) -> str:
    """10_400_000 -> "10.4 MB", in decimal units from B to TB."""
    return scaled(size_bytes, ("B", "kB", "MB", "GB", "TB"))


def count(number: float) -> str:
    """5_200_000 -> "5.2 M"; B is a thousand million."""
    return scaled(number, ("", "k", "M", "B", "T"))


def percent(share: float) -> str:
    """0.031 -> "3.1%"; below one percent, two digits that say something: 0.00042 -> "0.042%"."""
    return UNKNOWN if isnan(share) else f"{significant(100 * share)}%"


def change(before: float, after: float) -> str:
    """(18.3, 18.9) -> "+3.3%". Unknown where there was nothing before."""
    if isnan(before) or isnan(after) or before == 0:
        return UNKNOWN
    grown = 100 * (after - before) / abs(before)
    return "±0%" if abs(grown) < 0.05 else f"{'+' if grown > 0 else '-'}{one_decimal(abs(grown))}%"


def seconds(duration_seconds: float) -> str:
    """9.2 -> "9 s", 0.42 -> "0.4 s", 125 -> "2 min 5 s", 3720 -> "1 h 2 min"."""
    if isnan(duration_seconds):
        return UNKNOWN
    if duration_seconds < 0.95:
        return f"{duration_seconds:.1f} s"
    minutes, rest = divmod(round(duration_seconds), 60)
    hours, left = divmod(minutes, 60)
    return (
        f"{hours} h {left} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
    )


def two_decimals(number: float | None) -> str:
    """4.5 -> "4.50"; a dash if an older record has no value."""
    return UNKNOWN if number is None or isnan(number) else f"{number:.2f}"


def scaled(amount: float, units: tuple[str, ...]) -> str:
    """The amount in the unit that leaves one to three digits before the point."""
    if isnan(amount):
        return UNKNOWN
    rank = 0
    while abs(amount) >= 999.5 and rank < len(units) - 1:
        amount, rank = amount / 1000, rank + 1
    return f"{one_decimal(amount) if rank else round(amount)} {units[rank]}".strip()


def one_decimal(number: float) -> str:
    """10.44 -> "10.4", 104.4 -> "104"."""
    return f"{number:.1f}" if abs(number) < 99.95 else f"{number:,.0f}"


def significant(number: float) -> str:
    return (
        f"{number:.0f}"
        if number in (0, 100)
        else f"{number:.2g}"
        if abs(number) < 0.95
        else one_decimal(number)
    )
