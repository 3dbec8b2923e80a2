"""The original model's quality, measured once for every run that starts from it."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from engine import __version__
from engine.evaluation.data.cache import kept_in, kept_or_made
from engine.evaluation.data.corpora import corpus_key
from engine.evaluation.data.sources import is_local
from engine.evaluation.measured import Measured
from engine.models.loading import Folder
from engine.recipe import Recipe, identity
from engine.results.schema.record import Protocol

FORM = "3"  # of the cached data; increased when scores or notes are added


def measured_once(recipe: Recipe, folder: Folder, measure: Callable[[], Measured]) -> Measured:
    """Result of ``measure``, cached on disk by everything that could change it."""
    if not unchanging(recipe.task.source):
        return measure()
    return kept_or_made(kept_at(recipe, folder), read, measure, write)


def baseline_known(recipe: Recipe, folder: Folder) -> bool:
    """Return True if the original's quality is cached."""
    return unchanging(recipe.task.source) and kept_at(recipe, folder).exists()


def kept_at(recipe: Recipe, folder: Folder) -> Path:
    return kept_in() / f"baseline-{baseline_key(recipe, folder)}.npz"


def unchanging(source: str) -> bool:
    """Return True if a change of the data would be detected; a Hub dataset without @revision may
    change under its name.
    """
    return source.startswith("bundled:") or is_local(source) or "@" in source


def baseline_key(recipe: Recipe, folder: Folder) -> str:
    source = recipe.task.source
    data = corpus_key() if source.startswith("bundled:") else identity(source)
    return place_key(recipe, folder, recipe.task.model_dump_json(), data, FORM)


def place_key(recipe: Recipe, folder: Folder, *more: str) -> str:
    """16 hex digits of the model as its files are now, of where and how the recipe computes, and of
    what else may matter.
    """
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    parts = [__version__, torch.__version__, gpu, recipe.device, recipe.dtype, *more]
    return hashlib.sha256(
        "\n".join([*parts, str(folder.path), folder.revision]).encode()
    ).hexdigest()[:16]


def write(path: Path, measured: Measured) -> None:
    words = {
        "scores": json.dumps(measured.scores),
        "protocol": measured.protocol.model_dump_json(),
        "notes": json.dumps(measured.notes),
    }
    np.savez(path, guesses=measured.guesses, **words)


def read(path: Path) -> Measured:
    # a file of our own, because numpy leaves a damaged one open
    with path.open("rb") as file, np.load(file) as kept:
        protocol, notes = (
            Protocol.model_validate_json(str(kept["protocol"])),
            tuple(json.loads(str(kept["notes"]))),
        )
        return Measured(json.loads(str(kept["scores"])), protocol, kept["guesses"], notes)
