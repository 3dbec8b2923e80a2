"""Quality of the original model, measured once for all runs that start from it."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from engine import __version__
from engine.evaluation.data.cache import data_folder, load_or_make
from engine.evaluation.data.corpora import corpus_key
from engine.evaluation.data.sources import is_local
from engine.evaluation.measured import EvaluationResult
from engine.models.loading import ModelSource
from engine.recipe import Recipe, file_identity
from engine.results.schema.record import Protocol

CACHE_VERSION = "3"  # of the cached data; increased when scores or notes are added


def cached_baseline(
    recipe: Recipe, folder: ModelSource, measure: Callable[[], EvaluationResult]
) -> EvaluationResult:
    """Result of ``measure``, cached on disk by everything that could change it."""
    if not has_detectable_changes(recipe.task.source):
        return measure()
    return load_or_make(baseline_path(recipe, folder), load_baseline, measure, save_baseline)


def is_baseline_cached(recipe: Recipe, folder: ModelSource) -> bool:
    """Return True if the original's quality is cached."""
    return has_detectable_changes(recipe.task.source) and baseline_path(recipe, folder).exists()


def baseline_path(recipe: Recipe, folder: ModelSource) -> Path:
    return data_folder() / f"baseline-{baseline_key(recipe, folder)}.npz"


def has_detectable_changes(source: str) -> bool:
    """Return True if a change of the data would be detected; a Hub dataset without @revision may
    change under its name.
    """
    return source.startswith("bundled:") or is_local(source) or "@" in source


def baseline_key(recipe: Recipe, folder: ModelSource) -> str:
    source = recipe.task.source
    data = corpus_key() if source.startswith("bundled:") else file_identity(source)
    return environment_key(recipe, folder, recipe.task.model_dump_json(), data, CACHE_VERSION)


def environment_key(recipe: Recipe, folder: ModelSource, *more: str) -> str:
    """16 hex digits of the model's current files, the computation settings of the recipe, and the
    values of ``more``.
    """
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    parts = [__version__, torch.__version__, gpu, recipe.device, recipe.dtype, *more]
    return hashlib.sha256(
        "\n".join([*parts, str(folder.path), folder.revision]).encode()
    ).hexdigest()[:16]


def save_baseline(path: Path, result: EvaluationResult) -> None:
    words = {
        "scores": json.dumps(result.scores),
        "protocol": result.protocol.model_dump_json(),
        "notes": json.dumps(result.notes),
    }
    np.savez(path, guesses=result.guesses, **words)


def load_baseline(path: Path) -> EvaluationResult:
    # opened here, because numpy does not close a damaged file
    with path.open("rb") as file, np.load(file) as arrays:
        protocol, notes = (
            Protocol.model_validate_json(str(arrays["protocol"])),
            tuple(json.loads(str(arrays["notes"]))),
        )
        return EvaluationResult(
            json.loads(str(arrays["scores"])), protocol, arrays["guesses"], notes
        )
