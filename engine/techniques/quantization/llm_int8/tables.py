"""Row of the explanation of LLM.int8()."""

from dataclasses import dataclass

from engine.results.schema.declaration import explanation_row


@explanation_row(panel="OUTLIER_COLUMNS")
@dataclass(frozen=True)
class OutlierRow:
    """One input column against the threshold."""

    column: int
    largest: float  # max |x| on calibration inputs
    threshold: float
    apart: bool  # kept in 16 bits
