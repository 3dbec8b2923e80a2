"""Explanations on one layer: single weights, and a technique on a small part of the layer. A
technique declares the rows of its own explanation in its folder.
"""

from dataclasses import dataclass

import pandas as pd

from engine.results.schema.declaration import explanation_row
from engine.results.schema.tables import NAN

SIDE = 64  # rows and columns of a layer that are shown at once


@dataclass(frozen=True)
class MapRow:
    """One weight of a piece of a layer."""

    row: int
    column: int
    original: float
    stored: float  # after compression


@explanation_row(panel="GROUP_ROUNDING")
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
class OverlapRow:
    """Agreement of two methods on the weights of one layer."""

    one: str
    other: str
    overlap: float  # of the weights that either keeps, the share that both keep


@dataclass(frozen=True)
class Explanation:
    """Explanation of a technique on real weights."""

    row: type  # declared with ``@explanation_row``, which names the panel
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
