"""What a run brings back."""

from dataclasses import dataclass

from engine.results.record import Summary
from engine.results.tables import Tables


@dataclass(frozen=True)
class Outcome:
    summary: Summary
    tables: Tables
