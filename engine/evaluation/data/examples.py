"""Data of a task: texts and labeled examples from any source, with a fingerprint."""

import hashlib
import io
import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatch
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from engine.errors import PlainError, option_name, value_text
from engine.evaluation.data.corpora import corpus, needs_extraction
from engine.evaluation.data.digits import NAMES, digits
from engine.evaluation.data.documents import Split, fingerprint, stable_hash
from engine.evaluation.data.passages import LABELS
from engine.evaluation.data.sources import (
    Table,
    checked_column,
    file_text,
    is_local,
    is_missing,
    load_table,
    local_path,
    source_path,
    text_column,
    text_values,
)
from engine.evaluation.progress import ignore_progress
from engine.events import Report
from engine.recipe.tasks import Classification, ImageClassification, TextClassification, file_kind
from engine.runtime.local_paths import check_path

# split of a bundled corpus behind a split's name; texts that a model was trained on are not
# offered
TEXT_SPLITS: dict[str, Split] = {
    "test": "evaluation",
    "train": "calibration",
    "calibration": "calibration",
}
# common names of a second text column
PAIRS = ("text_pair", "sentence2", "hypothesis", "question2", "text2", "text_b")
LABELLED_SPLITS: dict[str, Split] = {
    "test": "evaluation",
    "validation": "calibration",
    "train": "train",
    "unlabelled": "unlabelled",
}


# empty cells of numeric columns, in lower case
EMPTY_NUMBERS = ("na", "n/a", "nan", "null", "none")
MAX_PIXELS = 50_000_000  # of one image
MAX_PIXELS_IN_ALL = 1_500_000_000  # of the images of a task, about 4.5 GB in color
NUMBER = re.compile(r"[+-]?\d+(\.\d+)?", re.ASCII)
WHOLE = re.compile(r"\d{1,9}\.0+", re.ASCII)  # an integer as written in columns with empty cells


@dataclass(frozen=True)
class Text:
    texts: list[str]
    name: str
    fingerprint: str
    separator: str = "\n\n"  # separator of texts, as in published WikiText numbers
    notes: tuple[str, ...] = ()  # assumptions, one sentence each


@dataclass(frozen=True)
class Examples:
    inputs: list[str] | list[tuple[str, str]] | list[Image.Image]  # texts, pairs of texts or images
    labels: list[int]
    names: tuple[str, ...]  # of the classes; empty if the data has numbers only
    name: str
    fingerprint: str
    # the data numbers its classes; False if ``names`` are in alphabetical order
    numbered: bool = True
    notes: tuple[str, ...] = ()  # assumptions and skipped rows, one sentence each


# --- texts ----------------------------------------------------------------------------------------


def load_text(
    source: str, column: str = "text", split: str = "test", report: Report = ignore_progress
) -> Text:
    """Texts for language modeling and calibration. Raises PlainError when the source cannot be
    read.
    """
    if source.startswith("bundled:"):
        return bundled_text(source, split, report)
    if is_local(source) and file_kind(source) == ".txt":
        return plain_text(local_path(source))
    table = load_table(source, split)
    texts = text_column(table, column)
    return Text(texts, table.name, fingerprint(texts), notes=table.notes)


def plain_text(path: Path) -> Text:
    text, notes = file_text(path)
    return Text([text], path.name, fingerprint([text]), notes=notes)


def bundled_text(source: str, split: str, report: Report) -> Text:
    """Split of a bundled corpus in the order of a hash, so that the first tokens are a sample of
    all libraries.
    """
    match source:
        case "bundled:docs":
            rows = corpus("docs", known_split(source, split, TEXT_SPLITS), report)
        case "bundled:docs-libraries":
            rows = corpus("libraries", known_split(source, split, LABELLED_SPLITS), report)
        case _:
            raise PlainError(
                f"{value_text(source)} is no bundled text; the bundled texts are bundled:docs and "
                "bundled:docs-libraries."
            )
    texts = sorted(rows["text"], key=stable_hash)
    return Text(texts, f"{source}, {split} split", fingerprint(texts), "\n\n\n")


def is_available(source: str, split: str) -> bool:
    """False if a bundled text would have to be extracted from the installed packages first."""
    if source != "bundled:docs-libraries" or split not in LABELLED_SPLITS:
        return True
    return not needs_extraction("libraries", LABELLED_SPLITS[split])


def known_split(source: str, split: str, splits: dict[str, Split]) -> Split:
    if split not in splits:
        raise PlainError(
            f"{source} has no split named {value_text(split)}; its splits are {', '.join(splits)}."
        )
    return splits[split]


# --- labeled examples ----------------------------------------------------------------------------


@singledispatch
def load_examples(
    task: Classification, report: Report = ignore_progress, skip: int = 0
) -> Examples:
    """Return at most ``task.samples`` labeled examples, the same ones every time. With ``skip``,
    return those after the first ``skip`` of the same sample, so that no example is in both.

    Raises PlainError if the source cannot be read.
    """
    raise TypeError(f"{type(task).__name__} has no labeled examples")


@load_examples.register
def labeled_texts(
    task: TextClassification, report: Report = ignore_progress, skip: int = 0
) -> Examples:
    if task.data.startswith("bundled:"):
        return library_passages(task, report, skip)
    table = load_table(task.data, task.split)
    rows = random_rows(len(table), task.samples, skip)
    texts = texts_in(table, task.text_column, task.text_pair_column, rows)
    return labeled_examples(table, task, texts, rows, unread_pair_notes(table, task))


def texts_in(
    table: Table, first: str, second: str, rows: Sequence[int]
) -> list[str] | list[tuple[str, str]]:
    """Texts of the rows, or pairs if a ``second`` column is named."""
    column = checked_column(table, first, "text_column")
    texts = text_values(table.values(column, rows), table, column)
    if rows and not any(text.strip() for text in texts):
        raise PlainError(
            f"{table.name} has no text in its column {column!r}; name another "
            "Text column (text_column), or other data."
        )
    if not second:
        return texts
    other = checked_column(table, second, "text_pair_column")
    return list(zip(texts, text_values(table.values(other, rows), table, other), strict=True))


def unread_pair_notes(table: Table, task: TextClassification) -> tuple[str, ...]:
    """Note on a column that looks like a second text but is not named; it is never read
    automatically.
    """
    if task.text_pair_column:
        return ()
    found = next(
        (
            name
            for name in (*PAIRS, *other_text_columns(table, task))
            if name in table.columns and name != task.text_column
        ),
        None,
    )
    if not found:
        return ()
    about = (
        "if the model compares two texts, name it under "
        f"{option_name(TextClassification, 'text_pair_column')}"
    )
    return (f"The column {found} of {table.name} was not read; {about}.",)


def other_text_columns(table: Table, task: TextClassification) -> list[str]:
    """Columns that are not read and hold texts of three words or more."""
    others = [name for name in table.columns if name not in (task.text_column, task.label_column)]
    rows = range(min(len(table), 20))
    values = {
        name: [value for value in table.values(name, rows) if isinstance(value, str)]
        for name in others[:50]
    }
    return [
        name
        for name, texts in values.items()
        if texts and sum(len(text.split()) >= 3 for text in texts) > len(texts) / 2
    ]


@load_examples.register
def labeled_images(
    task: ImageClassification, report: Report = ignore_progress, skip: int = 0
) -> Examples:
    if task.data.startswith("bundled:"):
        return digit_images(task, skip)
    table = load_table(task.data, task.split)
    column = checked_column(table, task.image_column, "image_column")
    rows = random_rows(len(table), task.samples, skip)
    folder = source_path(task.data).parent
    return labeled_examples(table, task, images_in(table.values(column, rows), folder), rows)


def training_images(source: str, column: str) -> list[Image.Image]:
    """Images of a train split, without their labels. Raises PlainError if the source cannot be
    read.
    """
    if source == "bundled:digits":
        return digits("train").images
    table = load_table(source, "train")
    values = table.values(checked_column(table, column, "image_column"), range(len(table)))
    return images_in(values, source_path(source).parent)


def library_passages(task: TextClassification, report: Report, skip: int) -> Examples:
    if task.data != "bundled:docs-libraries":
        raise PlainError(
            f"{value_text(task.data)} holds no labeled texts; the bundled ones are "
            "bundled:docs-libraries."
        )
    if task.text_pair_column:
        raise PlainError(
            f"{task.data} has no second text column; leave "
            f"{option_name(task, 'text_pair_column')} empty, or give other data."
        )
    rows = corpus("libraries", known_split(task.data, task.split, LABELLED_SPLITS), report)
    rows = rows.iloc[random_rows(len(rows), task.samples, skip)]
    texts, labels = rows["text"].tolist(), rows["label"].tolist()
    return Examples(
        texts,
        labels,
        LABELS,
        f"{task.data}, {task.split} split",
        examples_fingerprint(texts, labels),
    )


def digit_images(task: ImageClassification, skip: int) -> Examples:
    if task.data != "bundled:digits":
        raise PlainError(
            f"{value_text(task.data)} holds no labeled images; the bundled ones are bundled:digits."
        )
    data = digits(task.split)
    rows = random_rows(len(data.labels), task.samples, skip)
    images, labels = [data.images[row] for row in rows], [data.labels[row] for row in rows]
    return Examples(
        images,
        labels,
        NAMES,
        f"{task.data}, {task.split} split",
        examples_fingerprint(images, labels),
    )


def labeled_examples(
    table: Table,
    task: Classification,
    inputs: list[Any],
    rows: Sequence[int],
    notes: tuple[str, ...] = (),
) -> Examples:
    """Skip rows without a label, with a note.

    Raises PlainError if no row has one.
    """
    column = checked_column(table, task.label_column, "label_column")
    given_labels = table.values(column, rows)
    empty = empty_cells(given_labels)
    labeled = [index for index, is_empty in enumerate(empty) if not is_empty]
    if rows and not labeled:
        raise PlainError(
            f"The column {column} of {table.name} has no labels; choose another "
            f"{option_name(task, 'label_column')}, or give labeled data."
        )
    if left_out := len(rows) - len(labeled):
        has, is_ = ("has", "is") if left_out == 1 else ("have", "are")
        notes = (
            *notes,
            (
                f"{left_out:,} of {len(rows):,} rows {has} no label in the column {column} of "
                f"{table.name} and {is_} skipped."
            ),
        )
    inputs = [inputs[index] for index in labeled]
    values = [plain_label(given_labels[index], table.name, column) for index in labeled]
    names = table.class_names(column) or tuple(
        sorted({value for value in values if isinstance(value, str)})
    )
    labels = [names.index(value) if isinstance(value, str) else value for value in values]
    numbered = not any(isinstance(value, str) for value in values)
    if not numbered and any(isinstance(value, int) for value in values):
        raise PlainError(
            f"The column {column} of {table.name} mixes names and numbers; use either for "
            "all labels."
        )
    return Examples(
        inputs,
        labels,
        names,
        table.name,
        examples_fingerprint(inputs, labels),
        numbered,
        (*table.notes, *notes),
    )


def empty_cells(values: Sequence[Any]) -> list[bool]:
    """True for cells without a label. Words such as NA are labels unless all others are numbers."""
    words = [value.strip() if isinstance(value, str) else value for value in values]
    empty = [is_missing(word) or word == "" for word in words]
    numeric = [isinstance(word, str) and word.lower() in EMPTY_NUMBERS for word in words]
    others = [
        word
        for word, skip, word_for_empty in zip(words, empty, numeric, strict=True)
        if not skip and not word_for_empty
    ]
    if others and all(not isinstance(word, str) or NUMBER.fullmatch(word) for word in others):
        return [
            is_empty or is_numeric_gap
            for is_empty, is_numeric_gap in zip(empty, numeric, strict=True)
        ]
    return empty


def plain_label(value: Any, table: str, column: str) -> int | str:
    """A label as the data means it: a class's number or its name."""
    if isinstance(value, str) and value.strip():
        return (
            int(value)
            if value.strip().isdecimal()
            else int(float(value))
            if WHOLE.fullmatch(value.strip())
            else value.strip()
        )
    if (
        not isinstance(value, int | float)
        or not math.isfinite(value)
        or value != int(value)
        or value < 0
    ):
        raise PlainError(
            f"The column {column} of {table} holds the label {value_text(value)}; labels are names "
            "or whole numbers from 0 (a split whose labels are -1 is not labeled: choose another)."
        )
    return int(value)


def random_rows(rows: int, samples: int, skip: int = 0) -> list[int]:
    """Random row numbers, at most ``samples``, in order, with seed 0, so that a file sorted by
    label loses no class.
    """
    return sorted(np.random.default_rng(0).permutation(rows)[skip : skip + samples].tolist())


def cell_image(value: Any, folder: Path) -> Image.Image:
    """The image that a cell holds: decoded, as bytes, as a path next to the file, or as rows of
    pixels.
    """
    try:
        match value:
            case Image.Image():
                return value
            case {"bytes": bytes(content)} | bytes(content):
                return open_image(io.BytesIO(content))
            case {"path": str(path)} | str(path):
                return open_image(check_regular_file(check_path(folder / path)))
        return Image.fromarray(
            np.array([np.asarray(row).tolist() for row in value], dtype=np.uint8)
        )
    except PlainError:
        raise
    except (OSError, ValueError, TypeError, OverflowError, Image.DecompressionBombError) as error:
        reason = (
            error.strerror
            if isinstance(error, OSError) and error.strerror
            else "cannot be read as an image"
        )
        raise PlainError(
            f"The image {value_text(value)} {reason}; images are files, their bytes, or rows of "
            "pixels from 0 to 255."
        ) from None


def open_image(file: Any) -> Image.Image:
    """Open and decode an image.

    Raises PlainError for an image of more than MAX_PIXELS, before it is decoded.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(file)
    width, height = image.size
    if width * height > MAX_PIXELS:
        image.close()
        raise PlainError(
            f"An image has {width:,} x {height:,} pixels, and at most {MAX_PIXELS:,} in all "
            "are read; make it smaller."
        )
    image.load()
    return image


def check_regular_file(path: Path) -> Path:
    """Return the path after checking that it is a regular file.

    Raises PlainError for a pipe or device, which may never end.
    """
    if path.exists() and not path.is_file():
        raise PlainError(
            f"The image {value_text(str(path))} is not a regular file; give the path of an image."
        )
    return path


def images_in(values: Sequence[Any], folder: Path) -> list[Image.Image]:
    """Decode the images of a column's values. Paths are relative to ``folder``.

    Raises PlainError if they have more than MAX_PIXELS_IN_ALL together.
    """
    images, pixels = [], 0
    for value in values:
        images.append(cell_image(value, folder))
        pixels += math.prod(images[-1].size)
        if pixels > MAX_PIXELS_IN_ALL:
            raise PlainError(
                f"The first {len(images):,} of {len(values):,} images have more than "
                f"{MAX_PIXELS_IN_ALL:,} pixels together; "
                f"use smaller images, or lower {option_name(Classification, 'samples')}."
            )
    return images


def examples_fingerprint(
    inputs: list[str] | list[tuple[str, str]] | list[Image.Image], labels: list[int]
) -> str:
    """16 hex digits that change when any text, pixel or label changes."""
    digest = hashlib.sha256()
    for content, label in zip(inputs, labels, strict=True):
        content = "\0".join(content) if isinstance(content, tuple) else content
        contents = (
            content.encode()
            if isinstance(content, str)
            else f"{content.mode}{content.size}".encode() + content.tobytes()
        )
        digest.update(b"%d:%d:" % (label, len(contents)) + contents)
    return digest.hexdigest()[:16]
