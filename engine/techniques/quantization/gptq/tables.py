"""Row of the explanation of GPTQ."""

from dataclasses import dataclass

from engine.results.schema.declaration import explanation_row


@explanation_row(panel="GPTQ_REPLAY")
@dataclass(frozen=True)
class ReplayRow:
    """One weight after a number of columns were rounded, by GPTQ and by plain rounding."""

    step: int  # columns rounded so far
    place: int  # of its column in the order of rounding
    row: int
    column: int
    original: float
    gptq: float  # on the grid if its column is rounded, otherwise adjusted
    plain: float
    code: float  # GPTQ's, as stored; NaN if it is not rounded yet
    gptq_error: float  # |XW - XW^| / |XW| of the rows shown, on the layer's calibration inputs
    plain_error: float
