"""Tables for the explanations of techniques."""

from typing import Any

import pandas as pd
import torch

from engine.results.schema.tables import LevelRow, table
from engine.step.compressed_layer import LIVE_SAMPLES


def frame(row: type, /, **columns: Any) -> pd.DataFrame:
    """Table of a row class from its columns: tensors of equal length, flattened, or one value for
    all rows.
    """
    flat = {
        name: value.flatten().numpy() if isinstance(value, torch.Tensor) else value
        for name, value in columns.items()
    }
    return pd.DataFrame(flat)[[*row.__dataclass_fields__]]


def empty_levels() -> pd.DataFrame:
    return table((), LevelRow)


def part_of(things: str, shown: int, of: int) -> str:
    return f"all {of} {things}" if shown == of else f"{shown} of {of} {things}"


def examples_note() -> str:
    return f"by the first {LIVE_SAMPLES} calibration examples at most; a run uses all of them"
