"""Amount of data that a model reads, and the time for reading it."""

from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from pydantic import TypeAdapter

from engine.errors import PlainError
from engine.evaluation import calibration_data
from engine.evaluation.calibration_batches import own_calibration_task
from engine.evaluation.classification import IMAGES, TEXTS
from engine.evaluation.data.examples import is_available, load_examples, load_text
from engine.evaluation.data.sources import is_local, local_path
from engine.evaluation.data.tokens import encoded_texts
from engine.evaluation.perplexity import CPU_TOKENS
from engine.forecast.throughput import best_of
from engine.models.loading import ModelSource, resolve_model, tokenizer_of
from engine.recipe import Recipe, file_identity
from engine.recipe.tasks import (
    Calibration,
    Classification,
    LanguageModeling,
    Task,
    TextClassification,
)


@dataclass(frozen=True)
class DataVolume:
    """Amount of data that a model reads in one phase."""

    positions: float  # tokens or images
    batches: float
    length: int  # tokens of one window or text; 1 for images


def data_volume(task: Task, folder: ModelSource) -> DataVolume:
    if isinstance(task, LanguageModeling):
        tokens = min(task.tokens, text_file_bytes(task) / 3)
        at_once = max(1, CPU_TOKENS * torch.get_num_threads() // task.context) * task.context
        return DataVolume(tokens, max(1.0, tokens / at_once), task.context)
    if isinstance(task, TextClassification):
        texts, length = example_count(task), text_length(task.model_dump_json(), str(folder.path))
        # texts of one length share a batch
        return DataVolume(texts * length, max(texts / TEXTS, min(texts, length)), int(length))
    return DataVolume(example_count(task), max(1.0, example_count(task) / IMAGES), 1)


def text_file_bytes(task: LanguageModeling) -> float:
    if task.text.startswith("bundled:") or not is_local(task.text):
        return float("inf")
    try:
        return max(1, local_path(task.text).stat().st_size)
    except (OSError, PlainError):
        return float("inf")


def example_count(task: Task) -> float:
    """Number of examples; the requested number if counting needs a download or an extraction."""
    return len(task_inputs(task.model_dump_json())) or task.samples


@lru_cache(maxsize=16)
def text_length(task: str, model: str) -> float:
    """Mean tokens per text, from a sample."""
    parsed, texts = TextClassification.model_validate_json(task), task_inputs(task)[:64]
    if not texts:
        return 0.7 * parsed.length
    rows = encoded_texts(texts, tokenizer_of(resolve_model(model)), parsed.length)["input_ids"]
    return sum(map(len, rows)) / len(rows)


@lru_cache(maxsize=16)
def task_inputs(task: str) -> list[Any]:
    """Examples of the task; none if they would have to be downloaded or extracted first."""
    parsed = TypeAdapter(Task).validate_json(task)
    if not (
        is_local(parsed.data) or (parsed.data.startswith("bundled:") and is_corpus_cached(parsed))
    ):
        return []
    try:
        return load_examples(parsed).inputs
    except PlainError:
        return []


def is_corpus_cached(task: Task) -> bool:
    """Return True if a task needs no extraction of bundled texts, or it is already cached."""
    return is_available(task.source, task.split)


def texts_are_cached(recipe: Recipe) -> bool:
    """Return True if neither evaluation nor calibration needs an extraction of bundled texts."""
    task, calibration = recipe.task, recipe.calibration
    own = (
        own_calibration_task(task, calibration)
        if calibration and isinstance(task, Classification)
        else None
    )
    return all(is_corpus_cached(each) for each in (task, own) if each)


def data_seconds(task: Task) -> float:
    """Seconds for reading the data once it is available."""
    return measured_data_seconds(task.model_dump_json()) if is_corpus_cached(task) else 0.0


@lru_cache(maxsize=16)
def measured_data_seconds(task: str) -> float:
    parsed = TypeAdapter(Task).validate_json(task)
    if not isinstance(parsed, LanguageModeling):
        return best_of(lambda: task_inputs.__wrapped__(task), 2, min_probes=2)
    if not (is_local(parsed.text) or parsed.text.startswith("bundled:")):
        return 1.0
    try:
        return best_of(
            lambda: load_text(parsed.text, parsed.text_column, parsed.split), 2, min_probes=2
        )
    except PlainError:
        return 0.0


def notes_on_data(recipe: Recipe, folder: ModelSource) -> tuple[tuple[str, ...], int]:
    """Notes on assumptions about a recipe's data and missing calibration data, and the number of
    calibration tokens; only for local data.
    """
    task, calibration = recipe.task, recipe.calibration
    files = "".join(
        file_identity(source)
        for source in (task.source, calibration.text if calibration else "")
        if source
    )
    return cached_notes_on_data(
        task.model_dump_json(), calibration.model_dump_json() if calibration else "", folder, files
    )


@lru_cache(maxsize=32)
def cached_notes_on_data(
    task: str, calibration: str, folder: ModelSource, files: str
) -> tuple[tuple[str, ...], int]:
    """Cached form of ``notes_on_data`` for one state of the ``files``. Errors are left to the
    run.
    """
    parsed, notes, tokens = TypeAdapter(Task).validate_json(task), [], 0
    with suppress(PlainError):
        if is_local(parsed.source):
            data = (
                load_text(parsed.text, parsed.text_column, parsed.split)
                if isinstance(parsed, LanguageModeling)
                else load_examples(parsed)
            )
            notes += data.notes
    looked_at = Calibration.model_validate_json(calibration) if calibration else None
    own_task = (
        looked_at and isinstance(parsed, Classification) and own_calibration_task(parsed, looked_at)
    )
    if looked_at and is_local(parsed.source if own_task else looked_at.text):
        with suppress(PlainError):
            data = calibration_data(looked_at, parsed, folder)
            notes += data.notes
            tokens = data.tokens
    return tuple(dict.fromkeys(notes)), tokens
