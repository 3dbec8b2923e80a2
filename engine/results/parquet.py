"""A run's tables as Parquet files, one each: what is read is what was written, or a refusal."""

import io
from contextlib import suppress
from dataclasses import MISSING, fields
from pathlib import Path
from typing import get_origin

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import PlainError
from engine.results.disk import write
from engine.results.tables import ROWS, Tables, table

LATER = (  # tables that runs of earlier versions do not have
    "surfaces", "latency", "storage", "importance", "masks", "structures", "ranks", "singular", "schedule", "lottery", "curves", "written",
    "stages",
    "similarity", "verdicts", "mistakes",
)  # fmt: skip
DAMAGED = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    pa.ArrowException,
)  # what flipped bits were seen to raise, and its kin


def save(tables: Tables, folder: Path) -> None:
    """Raises OSError when the disk refuses."""
    for name in ROWS:
        write(folder / f"{name}.parquet", packed(getattr(tables, name)))


def load(folder: Path) -> Tables:
    """Raises PlainError when a table is missing or damaged. Files that are no table of ours are left alone."""
    return Tables(**{name: loaded(folder / f"{name}.parquet", row) for name, row in ROWS.items()})


def loaded(path: Path, row: type) -> pd.DataFrame:
    try:
        return unpacked(path.read_bytes(), row)
    except FileNotFoundError:
        if path.stem in LATER:
            return table((), row)
        raise damaged(path, "is missing") from None
    except DAMAGED:
        raise damaged(path, "cannot be read") from None


def damaged(path: Path, how: str) -> PlainError:
    return PlainError(f"{path} {how}: the folder is damaged or of another version; run the recipe again and delete this run.")


def packed(frame: pd.DataFrame) -> bytes:
    file = io.BytesIO()
    # checksums: a flipped bit is a refusal, never a wrong number on a screen
    pq.write_table(pa.Table.from_pandas(frame), file, compression="zstd", write_page_checksum=True)
    return file.getvalue()


def unpacked(content: bytes, row: type) -> pd.DataFrame:
    """Raises ValueError when a column is missing, but for those with a default where no other has come instead: they are younger than the run."""
    frame = pq.read_table(io.BytesIO(content), page_checksum_verification=True).to_pandas()
    absent = [field for field in fields(row) if field.name not in frame]
    strange = set(frame) - {field.name for field in fields(row)}
    if absent and (strange or any(field.default is MISSING for field in absent)):
        raise ValueError(f"columns {[field.name for field in absent]} are missing")
    frame = frame.assign(**{field.name: pd.Series([field.default] * len(frame), index=frame.index) for field in absent})
    return frame.assign(**{field.name: tuples(frame[field.name]) for field in fields(row) if get_origin(field.type) is tuple})


def tuples(column: pd.Series) -> pd.Series:
    """Parquet knows lists; they come back as arrays."""
    return pd.Series([tuple(np.asarray(array).tolist()) for array in column], index=column.index, dtype=object)


def remove(folder: Path) -> None:
    for name in ROWS:
        with suppress(OSError):
            (folder / f"{name}.parquet").unlink()
