"""Repeated measurements as rows of a Markdown table."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from statistics import median
from time import perf_counter

HEADER = "| What | Target | Median | Least | Most | Times |\n|---|---|---:|---:|---:|---:|"


@dataclass(frozen=True)
class Measurement:
    what: str
    values: tuple[float, ...]
    unit: str = "s"
    target: str = ""
    digits: int = 3

    def __str__(self) -> str:
        middle, least, most = (
            f"{value:.{self.digits}g} {self.unit}"
            for value in (median(self.values), min(self.values), max(self.values))
        )
        return f"| {self.what} | {self.target} | {middle} | {least} | {most} | {len(self.values)} |"


def show(measurements: Iterable[Measurement]) -> None:
    """Each row as soon as it is known."""
    print(HEADER, flush=True)
    for measurement in measurements:
        print(measurement, flush=True)


def milliseconds(doing: Callable[..., object], settings: Iterable[tuple]) -> Iterator[float]:
    """Milliseconds of each call, one per setting."""
    for setting in settings:
        began = perf_counter()
        doing(*setting)
        yield (perf_counter() - began) * 1000
