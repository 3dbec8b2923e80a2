"""Rows for the explanations on one layer: single weights, and each technique on a small part of the
layer. Typed like ``tables``.
"""

from dataclasses import dataclass
from typing import Literal

import pandas as pd

from engine.results.schema.tables import NAN

SIDE = 64  # rows and columns of a layer that are shown at once


@dataclass(frozen=True)
class MapRow:
    """One weight of a piece of a layer."""

    row: int
    column: int
    original: float
    stored: float  # what it becomes


@dataclass(frozen=True)
class GroupRow:
    """One of a few weights that share a scale, or stand side by side where none is shared; as
    stored, columns multiplied by their factor.
    """

    row: int
    column: int
    original: float
    stored: float
    chosen: bool  # the weight that was asked about


@dataclass(frozen=True)
class ReplayRow:
    """One weight after one more column was rounded, by GPTQ and by plain rounding."""

    step: int  # columns rounded so far
    place: int  # of its column in the order of rounding
    row: int
    column: int
    original: float
    gptq: float  # on the grid where its column is rounded; moved by then where it waits
    plain: float
    code: float  # GPTQ's, as stored; NaN while it waits
    gptq_error: float  # |XW - XW^| / |XW| of the rows shown, on the layer's calibration inputs
    plain_error: float


@dataclass(frozen=True)
class ScaledRow:
    """One weight of the column behind the strongest input, rounded as it is and rounded with a
    scale.
    """

    row: int
    column: int
    factor: float  # what the column is multiplied by
    original: float
    scaled: float
    error_without: float  # rounded minus original
    error_with: float


@dataclass(frozen=True)
class ReachRow:
    """Range of one input column and its weights, before and after."""

    column: int
    input_before: float  # max |x| in a sample of calibration inputs
    input_after: float  # of what the layer multiplies
    weight_before: float  # max |w|
    weight_after: float


@dataclass(frozen=True)
class OutlierRow:
    """One input column against the threshold."""

    column: int
    largest: float  # max |x| on calibration inputs
    threshold: float
    apart: bool  # kept in 16 bits


@dataclass(frozen=True)
class BitsRow:
    """One layer rounded to one number of bits."""

    bits: int
    relative_error: float
    bits_per_weight: float
    allowed: bool  # whether the layer may have this many


@dataclass(frozen=True)
class CutRow:
    """One cut of pruning with training in between, as its options plan it; the last row of a
    schedule is where training ends.
    """

    schedule: str
    cut: int  # from 1; 0 is the end of training
    step: int  # training steps done by then
    share: float  # of the weights that are zero from then on
    chosen: bool  # whether the options ask for this schedule


@dataclass(frozen=True)
class RoundRow:
    """One training of a lottery ticket, as its options plan it."""

    round: int  # 0: with all weights
    begins: int  # the step that weights are set back to
    ends: int
    left: float  # share of the weights


@dataclass(frozen=True)
class CriterionRow:
    """One input channel under three ways of choosing the few to keep."""

    column: int
    activation: float  # mean |x| on calibration inputs
    weight: float  # norm of its column
    by_activations: bool
    by_weights: bool
    at_random: bool


@dataclass(frozen=True)
class RemovedRow:
    """One weight and how much it matters to a technique that removes some."""

    row: int
    column: int
    weight: float
    score: float  # relative to the largest shown: 0 to 1
    stored: float
    stays: bool


@dataclass(frozen=True)
class OverlapRow:
    """Two methods, and how far they keep the same weights of one layer."""

    one: str
    other: str
    overlap: float  # of the weights that either keeps, the share that both keep


@dataclass(frozen=True)
class TileRow:
    """One tile of a layer's matrix: the mean of neighboring weights."""

    version: Literal["original", "rebuilt", "missing"]  # missing: what is rebuilt less the original
    row: int  # the tile's first
    column: int
    value: float


@dataclass(frozen=True)
class Explanation:
    """Explanation of a technique on real weights."""

    row: type  # of the table: what the picture shows
    table: pd.DataFrame
    levels: pd.DataFrame  # LevelRow of the weights shown; empty where there are none
    part: str  # which part of the layer is shown


@dataclass(frozen=True)
class WeightMap:
    """SIDE x SIDE weights of a layer, and how large the layer is."""

    table: pd.DataFrame  # MapRow
    shape: tuple[int, int]  # of the whole layer, as a matrix


@dataclass(frozen=True)
class WeightCode:
    """Stored form of one weight: weight = scale x level / factor, and level = code - zero on a
    uniform grid.
    """

    code: int
    bits: int
    scale: float
    level: float
    zero: float = NAN  # NaN where levels come from a table
    shared_by: int = 1  # weights with this scale

    @property
    def bit_string(self) -> str:
        """The bits; a negative code in two's complement."""
        return f"{self.code % 2**self.bits:0{self.bits}b}"


@dataclass(frozen=True)
class WeightView:
    """A single weight under the microscope."""

    row: int
    column: int
    original: float
    stored: float  # what the model computes with
    factor: float  # what its column is multiplied by before it is stored; 1 where it is not
    code: WeightCode | None  # None where it is stored without one
    group: pd.DataFrame  # GroupRow
    levels: pd.DataFrame  # LevelRow, of its group
