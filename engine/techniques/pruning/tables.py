"""Tables of pruned layers."""

from dataclasses import dataclass
from typing import Literal

from engine.results.schema.declaration import ResultView, run_table


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
    """One bin of a pruned layer's scores. Bins are even in the logarithm."""

    layer: str
    left: float  # of the score; the lowest bin holds every lower score too
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
    row: int  # the tile's first
    column: int
    left: float  # share of its weights that are not zero


MASK_VIEW = ResultView("Mask", MaskRow, ("MASK",), position=140, per_layer=True)
