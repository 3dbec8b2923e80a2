"""Tables of factorized layers, and the row of their explanation."""

from dataclasses import dataclass
from typing import Literal

from engine.results.schema.declaration import ResultView, explanation_row, run_table


@run_table("ranks")
@dataclass(frozen=True)
class RankRow:
    """Rank of one factorized layer."""

    layer: str
    rank: int  # along outputs, for a convolution of three factors
    input_rank: float  # along inputs, for a convolution of three factors; NaN for others
    full_rank: int  # rank without loss
    # rank at which factors take as many parameters as the weight; NaN where two ranks say that
    # together
    break_even: float
    kept_parameters: float  # share; for a correction, the added share
    # share of the squared singular values, whitened where the technique does that; of a correction,
    # of the rounding error's
    kept_energy: float
    whole: bool  # True if it is not factorized


RANKS_VIEW = ResultView("Ranks", RankRow, ("RANK_PER_LAYER",), position=170)


@run_table("singular")
@dataclass(frozen=True)
class SingularRow:
    """One singular value of a factorized layer, in one version of its matrix. Large layers have
    some evenly spaced ones.
    """

    layer: str
    version: Literal["plain", "whitened", "randomized"]
    index: int  # from 1
    singular_value: float  # relative to the largest of its version: 0 to 1
    cumulative_energy: float  # cumulative share of the sum of squares
    kept: bool  # True if the technique keeps it


SPECTRUM_VIEW = ResultView(
    "Spectrum",
    SingularRow,
    ("SINGULAR_VALUES", "CUMULATIVE_ENERGY"),
    position=180,
    per_layer=True,
)


@explanation_row(panel="RECONSTRUCTION")
@dataclass(frozen=True)
class TileRow:
    """One tile of a layer's matrix: the mean of neighboring weights."""

    version: Literal["original", "rebuilt", "missing"]  # missing: original minus reconstruction
    row: int  # first row of the tile
    column: int
    value: float
