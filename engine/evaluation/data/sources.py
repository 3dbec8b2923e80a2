"""User data: local files and Hub datasets, both as a table of named columns."""

import csv
import json
import logging
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from engine.errors import PlainError, value_text
from engine.evaluation.data.parquet import (
    MAX_BYTES,
    check_column_count,
    check_table_size,
    size_error,
)
from engine.evaluation.data.text_files import SEPARATORS, TextFile, column_format, text_file
from engine.recipe.tasks import COMPRESSIONS, FILES, file_kind
from engine.runtime.local_paths import check_path, path_limit
from engine.runtime.platform_support import limited_memory

HUB_DATASET = re.compile(
    r"(?P<id>(?:[\w.-]+/)?[\w.-]+)(?::(?P<config>[\w.-]+))?(?:@(?P<revision>[\w./-]+))?", re.ASCII
)
ALLOWED = (
    "give bundled:NAME, a .txt, .csv, .tsv, .json, .jsonl or .parquet file, or the id of a Hub "
    "dataset such as Salesforce/wikitext:wikitext-2-raw-v1"
)
MAX_CELLS = 50_000_000  # cells of a JSON table, whose rows may have different keys
# bytes of memory for reading a table, including copies of some values
READING_BYTES = MAX_BYTES + 1_000_000_000
UNREADABLE = (
    ValueError,
    OSError,
    TypeError,
    AttributeError,
    OverflowError,
    NotImplementedError,
    RecursionError,
)
# characters of one text column: about 16 million tokens, more than any run reads
MAX_CHARACTERS = 64_000_000


class Table(Protocol):
    """Rows of named columns, read on demand."""

    name: str  # as shown next to numbers
    columns: list[str]
    notes: tuple[str, ...]  # assumptions, one sentence each

    def __len__(self) -> int: ...

    def values(self, column: str, rows: Sequence[int]) -> list[Any]: ...

    def class_names(self, column: str) -> tuple[str, ...]:
        """Class names of a column of integers; empty if the data does not name them."""


@dataclass(frozen=True)
class FileTable:
    name: str
    frame: pd.DataFrame
    notes: tuple[str, ...] = ()

    @property
    def columns(self) -> list[str]:
        return [str(column) for column in self.frame.columns]

    def __len__(self) -> int:
        return len(self.frame)

    def values(self, column: str, rows: Sequence[int]) -> list[Any]:
        return self.frame[column].iloc[rows].tolist()

    def class_names(self, column: str) -> tuple[str, ...]:
        return ()


@dataclass(frozen=True)
class HubTable:
    name: str
    data: Any  # datasets.Dataset
    notes: tuple[str, ...] = ()

    @property
    def columns(self) -> list[str]:
        return list(self.data.column_names)

    def __len__(self) -> int:
        return len(self.data)

    def values(self, column: str, rows: Sequence[int]) -> list[Any]:
        return list(self.data.select_columns([column]).select(rows)[column])

    def class_names(self, column: str) -> tuple[str, ...]:
        return tuple(getattr(self.data.features[column], "names", None) or ())


def load_table(source: str, split: str) -> Table:
    """Load a file, or one split of a Hub dataset.

    Raises PlainError when the source cannot be read.
    """
    if is_local(source):
        return file_table(local_path(source))
    return hub_table(source, split)


def is_local(source: str) -> bool:
    """Return True if a source names a file, whether or not it exists."""
    return (
        file_kind(source) in FILES
        or source.startswith(("/", ".", "~", "\\"))
        or path_exists(Path(source))
    )


def path_exists(path: Path) -> bool:
    with suppress(OSError):  # the name is too long for the file system
        return path.exists()
    return False


def source_path(source: str) -> Path:
    with suppress(RuntimeError):  # the home of an unknown user
        return Path(source).expanduser()
    return Path(source)


def local_path(source: str) -> Path:
    """Path of the file that a source names. Raises PlainError if it does not exist or cannot be
    read.
    """
    path = check_path(source_path(source))
    if not path_exists(path):
        raise PlainError(f"There is no file {value_text(str(path))}; {ALLOWED}.")
    if path.is_dir() or file_kind(path.name) not in FILES:
        kind = (
            "a folder"
            if path.is_dir()
            else f"a {path.suffix} file"
            if path.suffix
            else "a file without an ending"
        )
        raise PlainError(f"{path.name} is {kind}, which cannot be read as data; {ALLOWED}.")
    if not path.is_file():
        raise PlainError(f"{path.name} is not a regular file (but a pipe or a device); {ALLOWED}.")
    if file_kind(path.name) == ".parquet" and path.suffix.lower() in COMPRESSIONS:
        raise PlainError(
            f"{path.name} is a compressed .parquet file, which is not supported; unpack it "
            "to a .parquet file."
        )
    if path.stat().st_size == 0:
        raise PlainError(f"{path.name} is empty; give a file with data in it.")
    return path


def file_text(path: Path) -> tuple[str, tuple[str, ...]]:
    """Content of a text file, at most MAX_CHARACTERS, and notes on assumptions."""
    file = text_file(path)
    with file.open_text() as stream:
        text = stream.read(MAX_CHARACTERS)
    if not text.strip():
        raise PlainError(
            f"{path.name} holds no text, only white space; give a file with text in it."
        )
    return text, file.notes


def file_table(path: Path) -> FileTable:
    kind = file_kind(path.name)
    if kind == ".txt":
        raise PlainError(
            f"{path.name} is plain text without columns; labeled data needs a .csv, .tsv, "
            ".json, .jsonl or .parquet file."
        )
    try:
        with limited_memory(READING_BYTES):
            check_table_size(path)
            file = TextFile(path, "") if kind == ".parquet" else text_file(path)
            table = table_in(file, kind)
    except PlainError:
        raise
    except MemoryError:
        raise size_error(path.name) from None
    except UNREADABLE as error:
        raise PlainError(
            f"{path.name} cannot be read as {kind[1:]} ({first_line(error)}); correct the "
            "file or save it again."
        ) from None
    if table.frame.empty:
        raise PlainError(f"{path.name} has no rows; give a file with data in it.")
    return table


def table_in(file: TextFile, kind: str) -> FileTable:
    """Rows of a file. Words such as NA and null stay text, and nothing is parsed as a date."""
    if kind == ".parquet":
        return FileTable(file.path.name, pd.read_parquet(file.path))
    if kind in (".csv", ".tsv"):
        return delimited_table(file)
    with file.open_text() as text:
        start = text.read(1024).lstrip()[:1]
    if start == "[" or kind == ".json":
        try:
            return FileTable(file.path.name, json_frame(file), file.notes)
        except json.JSONDecodeError:
            if start == "[":
                raise
    # many .json files contain one object per line
    return FileTable(file.path.name, json_lines(file), file.notes)


def json_frame(file: TextFile) -> pd.DataFrame:
    """Table from a list of rows, or from a mapping of columns to lists or to mappings of rows."""
    with file.open_text() as text:
        data = json.load(text)
    if isinstance(data, list):
        return frame_from_rows(data, file.path.name)
    if (
        isinstance(data, dict)
        and data
        and all(isinstance(column, list | dict) for column in data.values())
    ):
        return pd.DataFrame(data).reset_index(drop=True)
    return frame_from_rows([data], file.path.name)


def json_lines(file: TextFile) -> pd.DataFrame:
    rows = []
    with file.open_text() as text:
        for number, line in enumerate(text, 1):
            if line.strip():
                try:
                    rows.append(json.loads(line))
                except json.JSONDecodeError as error:
                    raise ValueError(f"line {number:,}: {error.msg}") from None
    return frame_from_rows(rows, file.path.name)


def frame_from_rows(rows: list[Any], name: str) -> pd.DataFrame:
    """Table whose columns are the keys of all rows. Raises PlainError beyond MAX_COLUMNS or
    MAX_CELLS.
    """
    columns: dict[str, None] = {}
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise ValueError(f"row {number:,} is not an object with a value for each column")
        columns |= dict.fromkeys(row)
        check_column_count(len(columns), name)
    if len(rows) * len(columns) > MAX_CELLS:
        raise PlainError(
            f"{name} has {len(rows):,} rows of {len(columns):,} columns, and at most "
            f"{MAX_CELLS:,} values are read; keep fewer columns."
        )
    return pd.DataFrame(rows, columns=list(columns))


def delimited_table(file: TextFile) -> FileTable:
    """Read a file with separated columns.

    Raises ValueError, with the separator, if rows and header differ in width.
    """
    columns = column_format(file)
    separator = SEPARATORS[columns.separator]
    check_column_count(columns.count, file.path.name)
    quoting = csv.QUOTE_MINIMAL if columns.quoted else csv.QUOTE_NONE
    with file.open_text() as text:
        try:
            if columns.stated:
                text.readline()
            frame = pd.read_csv(
                text,
                sep=columns.separator,
                quoting=quoting,
                keep_default_na=False,
                low_memory=False,
            )
        except ValueError as error:
            if isinstance(error, PlainError | UnicodeError):
                raise
            raise ValueError(
                f"{first_line(error)}; its columns were taken to be separated by {separator}"
            ) from None
    if not isinstance(frame.index, pd.RangeIndex):  # how pandas reads more values than columns
        raise ValueError(
            f"rows have more values than the header, with columns separated by {separator}; "
            "put texts in quotation marks"
        )
    return FileTable(file.path.name, frame, (*file.notes, *columns.notes))


def hub_table(source: str, split: str) -> HubTable:
    """One split of a Hub dataset: ``id``, ``id:config``, either with ``@revision``."""
    named = HUB_DATASET.fullmatch(source)
    if named is None:
        raise PlainError(f"{value_text(source)} names no data; {ALLOWED}.")
    import datasets  # slow to import and needed here only

    silence_datasets(datasets)
    # it would read from the server's own folder
    if named["id"] in datasets.packaged_modules._PACKAGED_DATASETS_MODULES:
        raise PlainError(f"{value_text(source)} is a file format, not a dataset; {ALLOWED}.")
    try:
        if path_limit():
            check_data_files(
                datasets.load_dataset_builder(
                    named["id"], named["config"], revision=named["revision"]
                )
            )
        data = datasets.load_dataset(
            named["id"], named["config"], split=split, revision=named["revision"]
        )
    except PlainError:
        raise
    except (
        OSError,
        ValueError,
        RuntimeError,
        ImportError,
        KeyError,
        datasets.exceptions.DatasetsError,
    ) as error:
        raise PlainError(
            f"The dataset {named['id']} cannot be loaded: {load_error_reason(error, named['id'])}."
        ) from None
    if len(data) == 0:
        raise PlainError(f"The {split} split of {source} is empty; choose another split.")
    return HubTable(f"{source}, {split} split", data)


def check_data_files(builder: Any) -> None:
    """Check the files in a dataset's card, which the library would read from this disk if their
    paths are absolute.

    Raises PlainError for absolute paths.
    """
    for files in (builder.config.data_files or {}).values():
        for file in map(str, files):
            if "://" not in file:
                check_path(Path(file))


def silence_datasets(datasets: Any) -> None:
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


def load_error_reason(error: Exception, name: str) -> str:
    """Cause of an error and what to do, as one clause."""
    text = first_line(error)
    if "onfig name is missing" in text:
        listed = ", ".join(re.findall(r"'([\w.-]+)'", str(error))[:8])
        return f"it has several configurations ({listed}); name one as {name}:CONFIG"
    if "onnection" in type(error).__name__ or "offline" in text.lower() or "reach" in text:
        return (
            "the Hub cannot be reached from here and no copy is on this machine; give a local "
            "file, or try again with a network"
        )
    if type(error).__name__ == "DatasetNotFoundError":
        return "there is none of that name, or it needs a login; check the id and revision"
    return f"{text}; check its id, configuration and split"


def first_line(error: Exception) -> str:
    """First line of a library's error, shortened to fit into a sentence."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].strip().rstrip(".:;")[:160]


def checked_column(table: Table, column: str, option: str) -> str:
    """Name of the column. Raises PlainError that lists the existing columns."""
    if column not in table.columns:
        listed = ", ".join(table.columns[:20])
        if len(table.columns) == 1 and table.name.lower().endswith((".csv", ".tsv")):
            *most, last = SEPARATORS.values()
            raise PlainError(
                f"{table.name} has no column {value_text(column)}; its only column is "
                f"{value_text(listed)}. Choose it with {option}, or "
                f"separate the columns by {', '.join(most)} or {last}."
            )
        raise PlainError(
            f"{table.name} has no column {value_text(column)}; its columns are {listed}. Choose "
            f"one with {option}."
        )
    return column


def text_column(table: Table, column: str) -> list[str]:
    """Texts of a column from the first row on, up to MAX_CHARACTERS. Rows without text
    are skipped.
    """
    checked_column(table, column, "text_column")
    texts: list[str] = []
    left = MAX_CHARACTERS
    for start in range(0, len(table), 1000):
        chunk = text_values(
            table.values(column, range(start, min(start + 1000, len(table)))), table, column
        )
        texts += [text for text in chunk if text]
        left -= sum(map(len, chunk))
        if left <= 0:
            break
    if not any(text.strip() for text in texts):
        raise PlainError(
            f"The column {column} of {table.name} holds no text; choose another "
            "Text column (text_column)."
        )
    return texts


def text_values(values: Iterable[Any], table: Table, column: str) -> list[str]:
    """The values as texts, empty for a missing one. Raises PlainError for other types."""
    texts = ["" if is_missing(value) else value for value in values]
    other = next((value for value in texts if not isinstance(value, str)), None)
    if other is not None:
        raise PlainError(
            f"The column {column} of {table.name} holds {value_text(other)} instead of text; "
            "choose another Text column (text_column)."
        )
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        raise PlainError(
            f"The column {column} of {table.name} holds half a character (a lone surrogate); "
            "save the file as UTF-8."
        ) from None
    return texts


def is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and np.isnan(value))
