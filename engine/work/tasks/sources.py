"""Data that people bring: local files and Hub datasets, both as a table of named columns."""

import logging
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from engine.catalog.tasks import FILES
from engine.errors import PlainError, given

HUB_DATASET = re.compile(r"(?P<id>(?:[\w.-]+/)?[\w.-]+)(?::(?P<config>[\w.-]+))?(?:@(?P<revision>[\w./-]+))?", re.ASCII)
ALLOWED = "give bundled:NAME, a .txt, .csv, .json, .jsonl or .parquet file, or the id of a Hub dataset such as Salesforce/wikitext:wikitext-2-raw-v1"
MOST_CHARACTERS = 64_000_000  # of one text column: about 16 million tokens, more than any run here reads


class Table(Protocol):
    """Rows of named columns, read when asked for."""

    name: str  # as it is shown beside numbers
    columns: list[str]

    def __len__(self) -> int: ...

    def values(self, column: str, rows: Sequence[int]) -> list[Any]: ...

    def class_names(self, column: str) -> tuple[str, ...]:
        """Names of the classes that the integers of a column stand for; empty where the data does not say."""


@dataclass(frozen=True)
class FileTable:
    name: str
    frame: pd.DataFrame

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

    @property
    def columns(self) -> list[str]:
        return list(self.data.column_names)

    def __len__(self) -> int:
        return len(self.data)

    def values(self, column: str, rows: Sequence[int]) -> list[Any]:
        return list(self.data.select_columns([column]).select(rows)[column])

    def class_names(self, column: str) -> tuple[str, ...]:
        return tuple(getattr(self.data.features[column], "names", None) or ())


def table_of(source: str, split: str) -> Table:
    """Raises PlainError when the source cannot be read."""
    if is_local(source):
        return file_table(local_path(source))
    return hub_table(source, split)


def is_local(source: str) -> bool:
    """Whether a source is meant as a file, there or not."""
    return Path(source).suffix.lower() in FILES or source.startswith(("/", ".", "~", "\\")) or is_there(Path(source))


def is_there(path: Path) -> bool:
    with suppress(OSError):  # a name too long for this disk
        return path.exists()
    return False


def path_of(source: str) -> Path:
    with suppress(RuntimeError):  # ~somebody who has no home here
        return Path(source).expanduser()
    return Path(source)


def local_path(source: str) -> Path:
    """The file a source names. Raises PlainError where there is none, or none that can be read."""
    path = path_of(source)
    if not is_there(path):
        raise PlainError(f"There is no file {given(str(path))}; {ALLOWED}.")
    if path.is_dir() or path.suffix.lower() not in FILES:
        what = "a folder" if path.is_dir() else f"a {path.suffix} file" if path.suffix else "a file without an ending"
        raise PlainError(f"{path.name} is {what}, which cannot be read as data; {ALLOWED}.")
    if path.stat().st_size == 0:
        raise PlainError(f"{path.name} is empty; give a file with data in it.")
    return path


def file_text(path: Path) -> str:
    """A text file as it is, at most MOST_CHARACTERS of it."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            text = file.read(MOST_CHARACTERS)
    except UnicodeDecodeError:
        raise PlainError(f"{path.name} is not UTF-8 text; save it as UTF-8 and try again.") from None
    except OSError as error:
        raise PlainError(f"{path.name} cannot be read ({error.strerror}); check its permissions.") from None
    if not text.strip():
        raise PlainError(f"{path.name} holds no text, only white space; give a file with text in it.")
    return text


def file_table(path: Path) -> FileTable:
    if path.suffix.lower() == ".txt":
        raise PlainError(f"{path.name} is plain text without columns; labelled data needs a .csv, .json, .jsonl or .parquet file.")
    try:
        frame = frame_of(path)
    except (ValueError, OSError, TypeError, AttributeError, OverflowError, NotImplementedError) as error:
        kind = path.suffix[1:].lower()
        raise PlainError(f"{path.name} cannot be read as {kind} ({first_line(error)}); correct the file or save it anew.") from None
    if frame.empty:
        raise PlainError(f"{path.name} has no rows; give a file with data in it.")
    return FileTable(path.name, frame)


def frame_of(path: Path) -> pd.DataFrame:
    """A file's rows. Words such as NA and null stay words, and nothing becomes a date."""
    match path.suffix.lower():
        case ".csv":
            return pd.read_csv(path, keep_default_na=False, encoding="utf-8-sig", low_memory=False)
        case ".parquet":
            return pd.read_parquet(path)
        case ".jsonl":
            return pd.read_json(path, lines=True, dtype=False)
    lines = path.read_text("utf-8-sig").lstrip()[:1] != "["  # many files named .json hold one object a line
    try:
        return pd.read_json(path, dtype=False)
    except ValueError:
        if not lines:
            raise
        return pd.read_json(path, lines=True, dtype=False)


def hub_table(source: str, split: str) -> HubTable:
    """One split of a Hub dataset: ``id``, ``id:config``, either with ``@revision``."""
    named = HUB_DATASET.fullmatch(source)
    if named is None:
        raise PlainError(f"{given(source)} names no data; {ALLOWED}.")
    import datasets  # slow to import, and not needed for anything else

    silence(datasets)
    try:
        data = datasets.load_dataset(named["id"], named["config"], split=split, revision=named["revision"])
    except (OSError, ValueError, RuntimeError, ImportError, KeyError, datasets.exceptions.DatasetsError) as error:
        raise PlainError(f"The dataset {named['id']} cannot be loaded: {why_not(error, named['id'])}.") from None
    if len(data) == 0:
        raise PlainError(f"The {split} split of {source} is empty; choose another split.")
    return HubTable(f"{source}, {split} split", data)


def silence(datasets: Any) -> None:
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


def why_not(error: Exception, name: str) -> str:
    """The cause and the way out, in one clause."""
    text = first_line(error)
    if "onfig name is missing" in text:
        listed = ", ".join(re.findall(r"'([\w.-]+)'", str(error))[:8])
        return f"it has several configurations ({listed}); name one as {name}:CONFIG"
    if "onnection" in type(error).__name__ or "offline" in text.lower() or "reach" in text:
        return "the Hub cannot be reached from here and no copy is on this machine; give a local file, or try again with a network"
    if type(error).__name__ == "DatasetNotFoundError":
        return "there is none of that name, or it needs a login; check the id and revision"
    return f"{text}; check its id, configuration and split"


def first_line(error: Exception) -> str:
    """What a library says, cut to a clause that fits into a sentence."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].strip().rstrip(".:;")[:160]


def checked_column(table: Table, column: str, option: str) -> str:
    """The column's name. Raises PlainError that lists the columns there are."""
    if column not in table.columns:
        listed = ", ".join(table.columns[:20])
        raise PlainError(f"{table.name} has no column {given(column)}; its columns are {listed}. Choose one with {option}.")
    return column


def text_column(table: Table, column: str) -> list[str]:
    """The texts of a column from the first row on, at most MOST_CHARACTERS of them; rows without text are left out."""
    checked_column(table, column, "text_column")
    texts: list[str] = []
    left = MOST_CHARACTERS
    for start in range(0, len(table), 1000):
        chunk = strings(table.values(column, range(start, min(start + 1000, len(table)))), table, column)
        texts += [text for text in chunk if text]
        left -= sum(map(len, chunk))
        if left <= 0:
            break
    if not any(text.strip() for text in texts):
        raise PlainError(f"The column {column} of {table.name} holds no text; choose another with text_column.")
    return texts


def strings(values: Iterable[Any], table: Table, column: str) -> list[str]:
    """The values as texts, nothing for a missing one. Raises PlainError where they are something else."""
    texts = ["" if missing(value) else value for value in values]
    other = next((value for value in texts if not isinstance(value, str)), None)
    if other is not None:
        raise PlainError(f"The column {column} of {table.name} holds {given(other)} where text is due; choose another with text_column.")
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        raise PlainError(f"The column {column} of {table.name} holds half a character (a lone surrogate); save the file as UTF-8.") from None
    return texts


def missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and np.isnan(value))
