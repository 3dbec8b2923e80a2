"""A run's tables as Parquet files, one per table, which are validated when they are read."""

import io
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import MISSING
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from engine.errors import PlainError
from engine.results.schema.declaration import Column, RunTable, columns_of, empty_table
from engine.results.schema.run_tables import TABLES, Tables
from engine.results.store.atomic_files import atomic_write, read_regular_file

MOST_BYTES = 256_000_000  # of a file
MOST_VALUES = 50_000_000  # of an unpacked table; a few kilobytes can unpack to any size
MOST_TEXT_BYTES = 512_000_000
DAMAGE_ERRORS = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    pa.ArrowException,
)  # raised for flipped bits


def save(tables: Tables, folder: Path) -> None:
    """Write all tables of a run. Raises OSError if the disk is full or read-only."""
    for name in TABLES:
        atomic_write(folder / f"{name}.parquet", parquet_bytes(getattr(tables, name)))


def load(folder: Path, names: Collection[str] = tuple(TABLES)) -> Tables:
    """Load the named tables of a run; the others stay empty.

    Raises PlainError if one is missing or damaged. Other files are ignored.
    """
    return Tables(
        **{
            name: load_parquet(folder / f"{name}.parquet", declared)
            for name, declared in TABLES.items()
            if name in names
        }
    )


def load_parquet(path: Path, declared: RunTable) -> pd.DataFrame:
    try:
        return table_from_bytes(read_regular_file(path, MOST_BYTES)[0], declared.row)
    except FileNotFoundError:
        if declared.required:
            raise damage_error(path, "is missing") from None
        return empty_table(declared.row)
    except DAMAGE_ERRORS:
        raise damage_error(path, "cannot be read") from None


def damage_error(path: Path, config: str) -> PlainError:
    return PlainError(
        f"{path} {config}: the folder is damaged or of another version; run the recipe again "
        "and delete this run."
    )


def parquet_bytes(frame: pd.DataFrame) -> bytes:
    file = io.BytesIO()
    # with checksums, so that a flipped bit is an error and never a wrong number
    pq.write_table(pa.Table.from_pandas(frame), file, compression="zstd", write_page_checksum=True)
    return file.getvalue()


def table_from_bytes(content: bytes, row: type) -> pd.DataFrame:
    """Read a table.

    Raises ValueError if a column is missing (unless it has a default and no unknown column is
    there, as in older runs), has another type than its row class, or if the table is too large.
    """
    file = pq.ParquetFile(io.BytesIO(content), page_checksum_verification=True)
    check_unpacked_size(file, content)
    check_column_types(file, row)
    frame = file.read().to_pandas().reset_index(drop=True)
    absent = [column for column in columns_of(row) if column.name not in frame]
    strange = set(frame) - {column.name for column in columns_of(row)}
    if absent and (strange or any(column.default is MISSING for column in absent)):
        raise ValueError(f"columns {[column.name for column in absent]} are missing")
    frame = frame.assign(
        **{
            column.name: pd.Series([column.default] * len(frame), index=frame.index)
            for column in absent
        }
    )
    frame = frame.assign(
        **{
            column.name: as_tuples(frame[column.name])
            for column in columns_of(row)
            if column.is_shape
        }
    )
    for column in columns_of(row):
        if column.is_text and not all(isinstance(value, str) for value in frame[column.name]):
            raise ValueError(f"column {column.name} has missing values")
    return frame


def check_unpacked_size(file: pq.ParquetFile, content: bytes) -> None:
    """Check the unpacked size of a table.

    Raises ValueError if it exceeds what any run writes.
    """
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    columns = [group.column(number) for group in groups for number in range(group.num_columns)]
    if max(file.metadata.num_rows, sum(column.num_values for column in columns)) > MOST_VALUES:
        raise ValueError("more values than a run writes")
    texts = [
        name
        for name, kind in zip(file.schema_arrow.names, file.schema_arrow.types, strict=True)
        if is_text(kind)
    ]
    longest = sum(
        column.num_values * column.total_uncompressed_size
        for column in columns
        if column.path_in_schema in texts
    )
    if (
        longest > MOST_TEXT_BYTES
        and sum(map(text_bytes, dictionaries(content, texts))) > MOST_TEXT_BYTES
    ):
        raise ValueError("more text than a run writes")


def check_column_types(file: pq.ParquetFile, row: type) -> None:
    """Check the column types in the file's schema before anything is unpacked.

    Raises ValueError if one differs from the row class. Columns of empty tables have no type.
    """
    if not file.metadata.num_rows:
        return
    stored = dict(zip(file.schema_arrow.names, file.schema_arrow.types, strict=True))
    for column in columns_of(row):
        if column.name in stored and not has_type(stored[column.name], column):
            raise ValueError(f"column {column.name} is {stored[column.name]}, not {column.type}")


def has_type(stored: pa.DataType, column: Column) -> bool:
    if column.is_shape:
        return pa.types.is_list(stored) or pa.types.is_large_list(stored)
    if column.is_text:
        return is_text(stored)
    if column.type is bool:
        return pa.types.is_boolean(stored)
    return pa.types.is_integer(stored) or pa.types.is_floating(stored)


def is_text(kind: pa.DataType) -> bool:
    kinds = (
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_dictionary,
    )
    return any(check(kind) for check in kinds)


def dictionaries(content: bytes, names: list[str]) -> Iterator[pa.DictionaryArray]:
    """Columns of text as dictionary arrays, which store equal values once."""
    table = pq.read_table(io.BytesIO(content), columns=names, read_dictionary=names)
    return (chunk for column in table.columns for chunk in column.chunks)


def text_bytes(chunk: pa.DictionaryArray) -> int:
    """Bytes of a dictionary column if every value were stored separately."""
    lengths = pc.binary_length(chunk.dictionary).cast(pa.int64())
    return pc.sum(lengths.take(chunk.indices)).as_py() or 0


def as_tuples(column: pd.Series) -> pd.Series:
    """Shapes as tuples; Parquet returns its lists as arrays."""
    shapes = [tuple(np.asarray(array).tolist()) for array in column]
    if not all(isinstance(size, int) for shape in shapes for size in shape):
        raise ValueError("a shape contains values that are not integers")
    return pd.Series(shapes, index=column.index, dtype=object)


def remove(folder: Path) -> None:
    for name in TABLES:
        with suppress(OSError):
            (folder / f"{name}.parquet").unlink()
