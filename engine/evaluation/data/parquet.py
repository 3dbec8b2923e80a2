"""Size limits for tables, checked before their values are read into memory.

A Parquet file of 10 KB can contain 20 GB: compressed pages, or one long text that many rows refer
to.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from engine.errors import PlainError
from engine.quantities import megabytes

MAX_BYTES = 2_000_000_000  # of one unpacked file
WIDTHS = {
    "BOOLEAN": 1,
    "INT32": 4,
    "FLOAT": 4,
    "INT64": 8,
    "DOUBLE": 8,
    "INT96": 8,
}  # bytes of a value in memory
ROWS_AT_ONCE = 16_384
MAX_COLUMNS = 10_000


def check_table_size(path: Path) -> None:
    """Check the packed and unpacked size of a table's file.

    Raises PlainError if it exceeds the limit.
    """
    if path.stat().st_size > MAX_BYTES:
        raise size_error(path.name)
    if path.suffix.lower() == ".parquet":
        check_parquet_size(path)


def check_parquet_size(path: Path) -> None:
    """Check the size of a Parquet file's values, from its metadata and the lengths of its text
    dictionaries.

    Raises PlainError if it exceeds the limit, and pyarrow's errors if the file is not Parquet.
    """
    with pq.ParquetFile(path) as file:
        check_column_count(file.metadata.num_columns, path.name)
        if (
            sum(declared_bytes(file, group) for group in range(file.metadata.num_row_groups))
            > MAX_BYTES
        ):
            raise size_error(path.name)
        texts = dictionary_columns(file)
    if not texts:
        return
    total = 0
    # so that repeated texts are in memory once
    with pq.ParquetFile(path, read_dictionary=texts) as file:
        for batch in file.iter_batches(ROWS_AT_ONCE, columns=texts):
            total += sum(map(decoded_bytes, batch.columns))
            if total > MAX_BYTES:
                raise size_error(path.name)


def declared_bytes(file: pq.ParquetFile, group: int) -> int:
    """Bytes of a row group's values; for texts and other variable sizes, the size of their pages
    according to the file.
    """
    total = 0
    for column in range(file.metadata.num_columns):
        chunk, kind = file.metadata.row_group(group).column(column), file.schema.column(column)
        width = (
            kind.length
            if kind.physical_type == "FIXED_LEN_BYTE_ARRAY"
            else WIDTHS.get(kind.physical_type)
        )
        total += chunk.num_values * width if width else chunk.total_uncompressed_size
    return total


def dictionary_columns(file: pq.ParquetFile) -> list[str]:
    """Text columns that any row group stores with a dictionary, except those inside lists."""
    coded = []
    for column in range(file.metadata.num_columns):
        kind = file.schema.column(column)
        if (
            kind.physical_type == "BYTE_ARRAY"
            and kind.max_repetition_level == 0
            and "." not in kind.path
        ):
            groups = (
                file.metadata.row_group(group).column(column)
                for group in range(file.metadata.num_row_groups)
            )
            if any("DICTIONARY" in encoding for chunk in groups for encoding in chunk.encodings):
                coded.append(kind.path)
    return coded


def decoded_bytes(column: pa.Array) -> int:
    """Bytes of a column's values when each row has its own copy."""
    if not isinstance(column, pa.DictionaryArray):
        return column.nbytes
    lengths = pc.binary_length(column.dictionary).take(column.indices)
    return column.indices.nbytes + (pc.sum(pc.cast(lengths, pa.int64())).as_py() or 0)


def check_column_count(columns: int, name: str) -> None:
    """Check the number of columns of a table.

    Raises PlainError for more columns than MAX_COLUMNS.
    """
    if columns > MAX_COLUMNS:
        raise PlainError(
            f"{name} has more than {MAX_COLUMNS:,} columns, and at most that many are read; "
            "keep fewer columns."
        )


def size_error(name: str) -> PlainError:
    return PlainError(
        f"{name} holds more than {megabytes(MAX_BYTES)} once it is unpacked, and at most "
        "that is read; keep fewer rows or columns of it."
    )
