"""The data behind a task: texts to read and labelled examples to judge, from any source, with a fingerprint."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatch
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from engine.catalog.tasks import Classification, ImageClassification, TextClassification
from engine.errors import PlainError, given
from engine.work.tasks.corpora import corpus
from engine.work.tasks.digits import NAMES, digits
from engine.work.tasks.documents import Split, fingerprint, hash_of
from engine.work.tasks.passages import LABELS
from engine.work.tasks.progress import Report, silent
from engine.work.tasks.sources import Table, checked_column, file_text, is_local, local_path, missing, path_of, strings, table_of, text_column

# which part of a bundled corpus stands behind a split's name; what a model was trained on is not on offer as text
TEXT_SPLITS: dict[str, Split] = {"test": "evaluation", "train": "calibration", "calibration": "calibration"}
LABELLED_SPLITS: dict[str, Split] = {"test": "evaluation", "validation": "calibration", "train": "train", "unlabelled": "unlabelled"}


@dataclass(frozen=True)
class Text:
    texts: list[str]
    name: str
    fingerprint: str
    separator: str = "\n\n"  # between two texts; what published WikiText numbers use


@dataclass(frozen=True)
class Examples:
    inputs: list[str] | list[Image.Image]
    labels: list[int]
    names: tuple[str, ...]  # of the classes; empty where the data gives numbers alone
    name: str
    fingerprint: str
    numbered: bool = True  # the data numbers its classes itself; False where ``names`` are in alphabetical order


# --- texts -----------------------------------------------------------------------------------------------------------


def text_of(source: str, column: str = "text", split: str = "test", report: Report = silent) -> Text:
    """Texts for language modeling and calibration. Raises PlainError when the source cannot be read."""
    if source.startswith("bundled:"):
        return bundled_text(source, split, report)
    if is_local(source) and Path(source).suffix.lower() == ".txt":
        return plain_text(local_path(source))
    table = table_of(source, split)
    texts = text_column(table, column)
    return Text(texts, table.name, fingerprint(texts))


def plain_text(path: Path) -> Text:
    text = file_text(path)
    return Text([text], path.name, fingerprint([text]))


def bundled_text(source: str, split: str, report: Report) -> Text:
    """A split of a bundled corpus, in an order drawn by hash: the first tokens are a sample of all libraries."""
    match source:
        case "bundled:docs":
            rows = corpus("docs", known_split(source, split, TEXT_SPLITS), report)
        case "bundled:docs-libraries":
            rows = corpus("libraries", known_split(source, split, LABELLED_SPLITS), report)
        case _:
            raise PlainError(f"{given(source)} is no bundled text; the bundled texts are bundled:docs and bundled:docs-libraries.")
    texts = sorted(rows["text"], key=hash_of)
    return Text(texts, f"{source}, {split} split", fingerprint(texts), "\n\n\n")


def known_split(source: str, split: str, known: dict[str, Split]) -> Split:
    if split not in known:
        raise PlainError(f"{source} has no split named {given(split)}; its splits are {', '.join(known)}.")
    return known[split]


# --- labelled examples -----------------------------------------------------------------------------------------------


@singledispatch
def examples_of(task: Classification, report: Report = silent, skip: int = 0) -> Examples:
    """At most ``task.samples`` labelled examples, drawn alike every time.

    With ``skip``, those that come after the first ``skip`` of the same draw: no example is in both.
    Raises PlainError when the source cannot be read.
    """
    raise TypeError(f"{type(task).__name__} has no labelled examples")


@examples_of.register
def labelled_texts(task: TextClassification, report: Report = silent, skip: int = 0) -> Examples:
    if task.data.startswith("bundled:"):
        return library_passages(task, report, skip)
    table = table_of(task.data, task.split)
    column = checked_column(table, task.text_column, "text_column")
    rows = drawn(len(table), task.samples, skip)
    texts = strings(table.values(column, rows), table, column)
    if rows and not any(text.strip() for text in texts):
        raise PlainError(f"{table.name} has no text in its column {column!r}; name another text_column, or other data.")
    return labelled(table, task, texts, rows)


@examples_of.register
def labelled_images(task: ImageClassification, report: Report = silent, skip: int = 0) -> Examples:
    if task.data.startswith("bundled:"):
        return digit_images(task, skip)
    table = table_of(task.data, task.split)
    column = checked_column(table, task.image_column, "image_column")
    rows = drawn(len(table), task.samples, skip)
    folder = path_of(task.data).parent
    return labelled(table, task, [image_of(value, folder) for value in table.values(column, rows)], rows)


def pictures_of(source: str, column: str) -> list[Image.Image]:
    """The pictures of a train split, whatever labels they may have. Raises PlainError when the source cannot be read."""
    if source == "bundled:digits":
        return digits("train").images
    table = table_of(source, "train")
    values = table.values(checked_column(table, column, "image_column"), range(len(table)))
    return [image_of(value, path_of(source).parent) for value in values]


def library_passages(task: TextClassification, report: Report, skip: int) -> Examples:
    if task.data != "bundled:docs-libraries":
        raise PlainError(f"{given(task.data)} holds no labelled texts; the bundled ones are bundled:docs-libraries.")
    rows = corpus("libraries", known_split(task.data, task.split, LABELLED_SPLITS), report)
    rows = rows.iloc[drawn(len(rows), task.samples, skip)]
    texts, labels = rows["text"].tolist(), rows["label"].tolist()
    return Examples(texts, labels, LABELS, f"{task.data}, {task.split} split", examples_fingerprint(texts, labels))


def digit_images(task: ImageClassification, skip: int) -> Examples:
    if task.data != "bundled:digits":
        raise PlainError(f"{given(task.data)} holds no labelled images; the bundled ones are bundled:digits.")
    data = digits(task.split)
    rows = drawn(len(data.labels), task.samples, skip)
    images, labels = [data.images[row] for row in rows], [data.labels[row] for row in rows]
    return Examples(images, labels, NAMES, f"{task.data}, {task.split} split", examples_fingerprint(images, labels))


def labelled(table: Table, task: Classification, inputs: list[Any], rows: Sequence[int]) -> Examples:
    column = checked_column(table, task.label_column, "label_column")
    values = [plain_label(value, table.name, column) for value in table.values(column, rows)]
    names = table.class_names(column) or tuple(sorted({value for value in values if isinstance(value, str)}))
    labels = [names.index(value) if isinstance(value, str) else value for value in values]
    numbered = not any(isinstance(value, str) for value in values)
    if not numbered and any(isinstance(value, int) for value in values):
        raise PlainError(f"The column {column} of {table.name} mixes names and numbers; use either for all labels.")
    return Examples(inputs, labels, names, table.name, examples_fingerprint(inputs, labels), numbered)


def plain_label(value: Any, table: str, column: str) -> int | str:
    """A label as the data means it: a class's number or its name."""
    if isinstance(value, str) and value.strip():
        return int(value) if value.strip().isdecimal() else value.strip()
    if missing(value) or not isinstance(value, int | float) or value != int(value) or value < 0:
        raise PlainError(
            f"The column {column} of {table} holds the label {given(value)}; labels are names or whole numbers from 0 "
            "(a split whose labels are -1 is not labelled: choose another)."
        )
    return int(value)


def drawn(rows: int, samples: int, skip: int = 0) -> list[int]:
    """At most ``samples`` of so many rows in their order, drawn with seed 0: a file sorted by label loses no class."""
    return sorted(np.random.default_rng(0).permutation(rows)[skip : skip + samples].tolist())


def image_of(value: Any, folder: Path) -> Image.Image:
    """The image that a cell holds: decoded, as bytes, as a path beside the file, or as rows of pixels."""
    try:
        match value:
            case Image.Image():
                return value
            case {"bytes": bytes(content)} | bytes(content):
                return opened(io.BytesIO(content))
            case {"path": str(path)} | str(path):
                return opened(folder / path)
        return Image.fromarray(np.array([np.asarray(row).tolist() for row in value], dtype=np.uint8))
    except (OSError, ValueError, TypeError, OverflowError) as error:
        what = error.strerror if isinstance(error, OSError) and error.strerror else "cannot be read as an image"
        raise PlainError(f"The image {given(value)} {what}; images are files, their bytes, or rows of pixels from 0 to 255.") from None


def opened(file: Any) -> Image.Image:
    image = Image.open(file)
    image.load()
    return image


def examples_fingerprint(inputs: list[str] | list[Image.Image], labels: list[int]) -> str:
    """16 hex digits that change when any text, pixel or label changes."""
    digest = hashlib.sha256()
    for content, label in zip(inputs, labels, strict=True):
        seen = content.encode() if isinstance(content, str) else f"{content.mode}{content.size}".encode() + content.tobytes()
        digest.update(b"%d:%d:" % (label, len(seen)) + seen)
    return digest.hexdigest()[:16]
