"""Table of the settings that mixed precision chooses from, and the row of its explanation."""

from dataclasses import dataclass

from engine.results.schema.declaration import ResultView, explanation_row, run_table


@run_table("sensitivity", required=True)
@dataclass(frozen=True)
class SensitivityRow:
    """One setting that a layer might get in mixed precision."""

    layer: str
    bits: int
    scheme: str
    range: str
    size_bytes: int
    # KL divergence of the model's answers when this layer alone is rounded so, nats
    quantize_one: float
    # what it adds when all others are rounded to the fewest bits, nats; either is NaN where not
    # measured
    restore_one: float
    chosen: bool


SENSITIVITY_VIEW = ResultView("Sensitivity", SensitivityRow, ("SENSITIVITY",), position=190)


@explanation_row(panel="ERROR_BY_BITS")
@dataclass(frozen=True)
class BitsRow:
    """One layer rounded to one number of bits."""

    bits: int
    relative_error: float
    bits_per_weight: float
    allowed: bool  # True if the recipe allows this many
