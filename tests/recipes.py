"""Tasks of tiny models: a text, labeled texts, or the bundled digits."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.config.registry import TECHNIQUES
from engine.config.technique import Technique
from engine.recipe import Recipe
from tests.tiny import IMAGE_MODELS, SENTENCES, WRITERS, tiny


def task_for(architecture: str, folder: Path) -> dict[str, Any]:
    """A task of a moment, with its data written into ``folder``."""
    folder.mkdir(exist_ok=True)
    if architecture in WRITERS:
        (folder / "text.txt").write_text(
            " ".join(f"{index} {SENTENCES[index % 3]}" for index in range(40))
        )
        return {
            "kind": "language-modeling",
            "text": str(folder / "text.txt"),
            "context": 64,
            "tokens": 512,
        }
    if architecture in IMAGE_MODELS:
        return {"kind": "image-classification", "samples": 40}
    rows = [
        {"text": sentence[: 5 + 3 * index], "label": index % 3}
        for index in range(8)
        for sentence in SENTENCES
    ]
    (folder / "texts.json").write_text(json.dumps(rows))
    return {
        "kind": "text-classification",
        "data": str(folder / "texts.json"),
        "length": 64,
        "samples": 16,
    }


def recipe_for(
    architecture: str, model: Path, folder: Path, *steps: dict[str, Any], **fields: Any
) -> Recipe:
    task = task_for(architecture, folder)
    calibration = {"text": task.get("text", "bundled:docs"), "samples": 6, "context": 32}
    if architecture == "resnet" and any(step.get("pattern") for step in steps):
        # no pattern of four fits into kernels of 7 x 7
        fields = {"layers": {"skip": ["*embedder*"]}, **fields}
    seeing = (
        {"calibration": calibration}
        if any(looks_at_data(TECHNIQUES[step["technique"]](**step)) for step in steps)
        else {}
    )
    return Recipe.from_dict(
        {
            "model": str(model),
            "task": task,
            "steps": list(steps),
            "device": "cpu",
            "speed": False,
            **seeing,
            **fields,
        }
    )


def looks_at_data(config: Technique) -> bool:
    return config.needs != "nothing" or config.trains


def few_digits(count: int, seed: int, folder: Path) -> dict[str, str]:
    """Data to train on, for a recipe: so many of the bundled digits with their labels, drawn by the
    seed, and the usual ones to be judged by.
    """
    from engine.evaluation.data.digits import digits

    known = digits("train")
    rows = np.random.default_rng(seed).permutation(len(known.labels))[:count]
    path = folder / f"digits-{count}-{seed}.json"
    path.write_text(
        json.dumps(
            [
                {"image": np.asarray(known.images[row]).tolist(), "label": known.labels[row]}
                for row in rows
            ]
        )
    )
    return {"train": str(path), "validation": "bundled:digits"}


def model_and_recipe(folder: Path, architecture: str = "llama") -> tuple[Any, Any, Recipe]:
    """Source and loaded model of a new tiny model in ``folder``, and a recipe without steps."""
    from engine.models.loaded_model import load_model
    from engine.models.loading import resolve_model

    path = tiny(architecture, folder / "model")
    source = resolve_model(str(path))
    loaded = load_model(source, torch.device("cpu"), torch.float32)
    return source, loaded.model, recipe_for(architecture, path, folder / "data")
