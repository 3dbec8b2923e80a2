"""The original model's quality, measured once for every run that starts from it."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from engine import __version__
from engine.recipe import Recipe, identity
from engine.results.record import Protocol
from engine.work.models import Folder
from engine.work.tasks.cache import kept_in, kept_or_made
from engine.work.tasks.corpora import corpus_key
from engine.work.tasks.measured import Measured
from engine.work.tasks.sources import is_local

FORM = "2"  # of what is kept: another one where scores have joined


def measured_once(recipe: Recipe, folder: Folder, measure: Callable[[], Measured]) -> Measured:
    """What ``measure`` gives, kept on disk by everything that could change it."""
    if not unchanging(recipe.task.source):
        return measure()
    return kept_or_made(kept_at(recipe, folder), read, measure, write)


def baseline_known(recipe: Recipe, folder: Folder) -> bool:
    """Whether a run need not measure the original."""
    return unchanging(recipe.task.source) and kept_at(recipe, folder).exists()


def kept_at(recipe: Recipe, folder: Folder) -> Path:
    return kept_in() / f"baseline-{baseline_key(recipe, folder)}.npz"


def unchanging(source: str) -> bool:
    """Whether we would notice if the data changed; a Hub dataset without @revision may change behind its name."""
    return source.startswith("bundled:") or is_local(source) or "@" in source


def baseline_key(recipe: Recipe, folder: Folder) -> str:
    source = recipe.task.source
    data = corpus_key() if source.startswith("bundled:") else identity(source)
    return place_key(recipe, folder, recipe.task.model_dump_json(), data, FORM)


def place_key(recipe: Recipe, folder: Folder, *more: str) -> str:
    """16 hex digits of the model as its files are now, of where and how the recipe computes, and of what else may matter."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    parts = [__version__, torch.__version__, gpu, recipe.device, recipe.dtype, *more]
    return hashlib.sha256("\n".join([*parts, str(folder.path), folder.revision]).encode()).hexdigest()[:16]


def write(path: Path, measured: Measured) -> None:
    np.savez(path, guesses=measured.guesses, scores=json.dumps(measured.scores), protocol=measured.protocol.model_dump_json())


def read(path: Path) -> Measured:
    with path.open("rb") as file, np.load(file) as kept:  # a file of our own, because numpy leaves a damaged one open
        return Measured(json.loads(str(kept["scores"])), Protocol.model_validate_json(str(kept["protocol"])), kept["guesses"])
