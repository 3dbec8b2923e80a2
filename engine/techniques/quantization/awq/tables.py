"""Row of the explanation of AWQ."""

from dataclasses import dataclass

from engine.results.schema.declaration import explanation_row


@explanation_row(panel="SCALED_COLUMN")
@dataclass(frozen=True)
class ScaledRow:
    """One weight of the column of the strongest input, rounded without and with a scale."""

    row: int
    column: int
    factor: float  # what the column is multiplied by
    original: float
    scaled: float
    error_without: float  # rounded minus original
    error_with: float
