"""Models of every architecture to read, or to copy and damage."""

import json
import shutil
import tempfile
from pathlib import Path

import pytest
import torch

from tests import hostile_models
from tests.model_folders import own_copy
from tests.tiny import ARCHITECTURES, tiny


@pytest.fixture(scope="session")
def library(tmp_path_factory) -> Path:
    """One folder of every architecture."""
    shelf = tmp_path_factory.mktemp("library")
    for architecture in ARCHITECTURES:
        tiny(architecture, shelf / architecture, dtype=torch.bfloat16)
    return shelf


@pytest.fixture
def llama(library, tmp_path) -> Path:
    return own_copy(library, "llama", tmp_path)


@pytest.fixture
def bert(library, tmp_path) -> Path:
    return own_copy(library, "bert", tmp_path)


@pytest.fixture(scope="session")
def bases(tmp_path_factory) -> dict[str, Path]:
    return hostile_models.library(tmp_path_factory.mktemp("library"))


@pytest.fixture
def copy_model(bases, tmp_path):
    """Copy a valid folder and set fields of its config.json, or of a nested part."""

    def copy(base: str, part: str = "", **fields) -> Path:
        folder = Path(tempfile.mkdtemp(dir=tmp_path), "model")
        shutil.copytree(bases[base], folder)
        config = json.loads((folder / "config.json").read_text())
        (config.setdefault(part, {}) if part else config).update(fields)
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return copy
