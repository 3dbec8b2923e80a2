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
    stored: float  # after compression


@dataclass(frozen=True)
class GroupRow:
    """One of a few weights that share a scale, or are adjacent if no scale is shared; as stored,
    with columns multiplied by their factor.
    """

    row: int
    column: int
    original: float
    stored: float
    chosen: bool  # the selected weight


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


@dataclass(frozen=True)
class ReachRow:
    """Range of one input column and its weights, before and after."""

    column: int
    input_before: float  # max |x| in a sample of calibration inputs
    input_after: float  # of the inputs of the layer's product
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
    allowed: bool  # True if the recipe allows this many


@dataclass(frozen=True)
class CutRow:
    """One pruning step of a gradual schedule, as planned; the last row of a schedule is the end of
    training.
    """

    schedule: str
    cut: int  # counted from 1; 0 is the end of training
    step: int  # training steps before it
    share: float  # share of zero weights after it
    chosen: bool  # True for the configured schedule


@dataclass(frozen=True)
class RoundRow:
    """One training of a lottery ticket, as planned."""

    round: int  # 0: the dense network
    begins: int  # the step to which weights are rewound
    ends: int
    left: float  # share of the weights


@dataclass(frozen=True)
class CriterionRow:
    """One input channel under three criteria for choosing the few to keep."""

    column: int
    activation: float  # mean |x| on calibration inputs
    weight: float  # norm of its column
    by_activations: bool
    by_weights: bool
    at_random: bool


@dataclass(frozen=True)
class RemovedRow:
    """One weight with its importance for a pruning technique."""

    row: int
    column: int
    weight: float
    score: float  # relative to the largest shown: 0 to 1
    stored: float
    stays: bool


@dataclass(frozen=True)
class OverlapRow:
    """Agreement of two methods on the weights of one layer."""

    one: str
    other: str
    overlap: float  # of the weights that either keeps, the share that both keep


@dataclass(frozen=True)
class TileRow:
    """One tile of a layer's matrix: the mean of neighboring weights."""

    version: Literal["original", "rebuilt", "missing"]  # missing: original minus reconstruction
    row: int  # first row of the tile
    column: int
    value: float


@dataclass(frozen=True)
class Explanation:
    """Explanation of a technique on real weights."""

    row: type  # caption: what the table shows
    table: pd.DataFrame
    levels: pd.DataFrame  # LevelRow of the shown weights; empty if there are none
    part: str  # the shown part of the layer


@dataclass(frozen=True)
class WeightMap:
    """SIDE x SIDE weights of a layer, and the layer's size."""

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
    zero: float = NAN  # NaN if levels are from a table
    shared_by: int = 1  # number of weights with this scale

    @property
    def bit_string(self) -> str:
        """The bits; a negative code in two's complement."""
        return f"{self.code % 2**self.bits:0{self.bits}b}"


@dataclass(frozen=True)
class WeightView:
    """Storage of a single weight."""

    row: int
    column: int
    original: float
    stored: float  # what the model computes with
    factor: float  # factor of its column before it is stored; 1 without one
    code: WeightCode | None  # None if it is stored without a code
    group: pd.DataFrame  # GroupRow
    levels: pd.DataFrame  # LevelRow, of its group
