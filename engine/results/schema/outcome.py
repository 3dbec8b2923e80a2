"""Result of a run."""

from dataclasses import dataclass

from engine.results.schema.record import Summary
from engine.results.schema.run_tables import Tables


@dataclass(frozen=True)
class Outcome:
    summary: Summary
    tables: Tables
