"""Tables of pruned layers, and the row of their explanation."""

from dataclasses import dataclass
from typing import Literal

from engine.results.schema.declaration import ResultView, explanation_row, run_table


@run_table("storage")
@dataclass(frozen=True)
class StorageRow:
    """Size of one pruned layer in one storage format."""

    layer: str
    way: Literal["dense", "bitmask", "csr", "n-of-m"]
    size_bytes: int
    chosen: bool


STORAGE_VIEW = ResultView("Storage", StorageRow, ("STORAGE",), position=150)


@run_table("importance")
@dataclass(frozen=True)
class ImportanceRow:
    """One bin of a pruned layer's scores. Bins have equal width on a logarithmic scale."""

    layer: str
    left: float  # of the score; the lowest bin contains all lower scores
    right: float
    stays: int  # weights
    goes: int


IMPORTANCE_VIEW = ResultView(
    "Importance", ImportanceRow, ("IMPORTANCE",), position=130, per_layer=True
)


@run_table("masks")
@dataclass(frozen=True)
class MaskRow:
    """One tile of a pruned layer: neighboring output by neighboring input channels."""

    layer: str
    row: int  # first row of the tile
    column: int
    left: float  # share of its weights that are not zero


MASK_VIEW = ResultView("Mask", MaskRow, ("MASK",), position=140, per_layer=True)


@explanation_row(panel="REMOVED_WEIGHTS")
@dataclass(frozen=True)
class RemovedRow:
    """One weight with its importance for a pruning technique."""

    row: int
    column: int
    weight: float
    score: float  # relative to the largest shown: 0 to 1
    stored: float
    stays: bool
