"""How much of the data a model reads, and what reading it takes."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from pydantic import TypeAdapter

from engine.catalog.tasks import LanguageModeling, Task, TextClassification
from engine.errors import PlainError
from engine.work.models import Folder, resolve, tokenizer_of
from engine.work.paces import quickest
from engine.work.tasks.cache import kept_in
from engine.work.tasks.classification import IMAGES, TEXTS
from engine.work.tasks.corpora import corpus_key
from engine.work.tasks.data import examples_of, text_of
from engine.work.tasks.perplexity import CPU_TOKENS
from engine.work.tasks.sources import is_local, local_path


@dataclass(frozen=True)
class Reading:
    """How much of the data a model reads at one time or another."""

    places: float  # tokens or pictures
    batches: float
    length: int  # of one window or text, in tokens; 1 for pictures


def reading(task: Task, folder: Folder) -> Reading:
    if isinstance(task, LanguageModeling):
        tokens = min(task.tokens, text_bytes(task) / 3)
        at_once = max(1, CPU_TOKENS * torch.get_num_threads() // task.context) * task.context
        return Reading(tokens, max(1.0, tokens / at_once), task.context)
    if isinstance(task, TextClassification):
        texts, each = count_of(task), text_length(task.model_dump_json(), str(folder.path))
        return Reading(texts * each, max(texts / TEXTS, min(texts, each)), int(each))  # texts of one length share a batch
    return Reading(count_of(task), max(1.0, count_of(task) / IMAGES), 1)


def text_bytes(task: LanguageModeling) -> float:
    if task.text.startswith("bundled:") or not is_local(task.text):
        return float("inf")
    try:
        return max(1, local_path(task.text).stat().st_size)
    except (OSError, PlainError):
        return float("inf")


def count_of(task: Task) -> float:
    """Examples that are read; as many as asked for where that takes a download or an extraction to know."""
    return len(inputs_of(task.model_dump_json())) or task.samples


@lru_cache(maxsize=16)
def text_length(task: str, model: str) -> float:
    """Mean tokens of a text, by a few of them."""
    asked, texts = TextClassification.model_validate_json(task), inputs_of(task)[:64]
    if not texts:
        return 0.7 * asked.length
    rows = tokenizer_of(resolve(model))(texts, truncation=True, max_length=asked.length)["input_ids"]
    return sum(map(len, rows)) / len(rows)


@lru_cache(maxsize=16)
def inputs_of(task: str) -> list:
    """The task's own examples; none where they would have to be fetched or extracted first."""
    asked = TypeAdapter(Task).validate_json(task)
    if not (is_local(asked.data) or (asked.data.startswith("bundled:") and corpus_kept(asked))):
        return []
    try:
        return examples_of(asked).inputs
    except PlainError:
        return []


def corpus_kept(task: Task) -> bool:
    """Whether the bundled texts behind a task have been extracted already, or need not be."""
    names = {"bundled:docs": "docs", "bundled:docs-libraries": "libraries"}
    return task.source not in names or Path(kept_in() / f"{names[task.source]}-{corpus_key()}.parquet").exists()


def data_seconds(task: Task) -> float:
    """What reading the data takes each time, once it is there."""
    return read_once(task.model_dump_json()) if corpus_kept(task) else 0.0


@lru_cache(maxsize=16)
def read_once(task: str) -> float:
    asked = TypeAdapter(Task).validate_json(task)
    if not isinstance(asked, LanguageModeling):
        return quickest(lambda: inputs_of.__wrapped__(task), 2, least=2)
    if not (is_local(asked.text) or asked.text.startswith("bundled:")):
        return 1.0
    try:
        return quickest(lambda: text_of(asked.text, asked.text_column, asked.split), 2, least=2)
    except PlainError:
        return 0.0
