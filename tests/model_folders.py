"""Folders of models, damaged in one place."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.errors import PlainError
from engine.models.loading import (
    ModelSource,
)
from tests.tiny import VOCABULARY


def own_copy(library: Path, architecture: str, folder: Path) -> Path:
    """A model of the test's own, to spoil."""
    return shutil.copytree(library / architecture, folder / architecture)


def edit_json(
    folder: Path, file: str = "config.json", without: tuple[str, ...] = (), **changes
) -> str:
    """The folder's reference, after a change to one of its JSON files."""
    content = {**json.loads((folder / file).read_text()), **changes}
    (folder / file).write_text(
        json.dumps({key: value for key, value in content.items() if key not in without})
    )
    return str(folder)


def split_into_shards(folder: Path) -> Path:
    """The folder, with its weights in two files and an index."""
    weights = load_file(folder / "model.safetensors")
    names = sorted(weights)
    halves = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in halves.items():
        save_file({name: weights[name] for name in part}, folder / file, metadata={"format": "pt"})
    index = {
        "metadata": {},
        "weight_map": {name: file for file, part in halves.items() for name in part},
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()
    return folder


def error_message(call, *given) -> str:
    """The one sentence in which it was refused: whole, on one line, without our paths or
    tracebacks.
    """
    with pytest.raises(PlainError) as caught:
        call(*given)
    text = str(caught.value)
    assert (
        text.endswith(".")
        and "\n" not in text
        and "Traceback" not in text
        and "site-packages" not in text
    )
    assert caught.value.__cause__ is None and len(text) < 450
    return text


def inputs(folder: ModelSource, rows: int = 2) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    if folder.kind == "image-classification":
        return {"pixel_values": torch.randn(rows, 1, 16, 16, generator=draw).bfloat16()}
    return {"input_ids": torch.randint(4, VOCABULARY, (rows, 16), generator=draw)}


@torch.no_grad()
def logits(model: torch.nn.Module, folder: ModelSource) -> torch.Tensor:
    return model(**inputs(folder)).logits
