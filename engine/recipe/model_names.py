"""Bundled models in assets/, and the parsing of model names."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.errors import PlainError
from engine.recipe.model_files import file_refusal
from engine.recipe.tasks import ImageClassification, LanguageModeling, Task, TextClassification
from engine.runtime.local_paths import check_path, expanded_path, is_local_path

ASSETS = Path(__file__).resolve().parents[2] / "assets"
HUB_ID = re.compile(r"(?:[\w.-]+/)?[\w.-]+(?:@[\w./-]+)?", re.ASCII)


@dataclass(frozen=True)
class BundledModel:
    name: str
    title: str
    about: str
    task: Task
    score: Literal["perplexity", "accuracy"]

    @property
    def reference(self) -> str:
        return f"bundled:{self.name}"

    @property
    def folder(self) -> Path:
        return ASSETS / "models" / self.name


BUNDLED_MODELS = {
    model.name: model
    for model in (
        BundledModel(
            "docs-lm",
            "Documentation writer",
            "A small Llama that writes Python documentation.",
            LanguageModeling(),
            "perplexity",
        ),
        BundledModel(
            "docs-classifier",
            "Library detective",
            "A small BERT that predicts which library a documentation passage is from.",
            TextClassification(),
            "accuracy",
        ),
        BundledModel(
            "digits-cnn",
            "Digit reader",
            "A small ResNet that reads handwritten digits.",
            ImageClassification(),
            "accuracy",
        ),
    )
}


@dataclass(frozen=True)
class ModelName:
    """Parsed name of a model."""

    kind: Literal["bundled", "directory", "hub"]
    name: str  # bundled name, absolute path, or Hub id
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> "ModelName":
        """Parse a bundled name, a local directory or a Hub id.

        Raises PlainError if the text is none of them.
        """
        text = text.strip()
        if text.startswith("bundled:"):
            name = text.removeprefix("bundled:")
            if name not in BUNDLED_MODELS:
                raise PlainError(
                    f"There is no bundled model {name[:80]!r}; choose one of "
                    f"{', '.join(BUNDLED_MODELS)}."
                )
            return cls("bundled", name)
        if is_local_path(text):
            check_path(expanded_path(text))
        path = existing_path(text)
        if path and path.is_dir():
            return cls("directory", str(path.resolve()))
        if path and path.is_file():
            raise PlainError(file_refusal(path, repr(text[:120])))
        if len(text) > 200 or not HUB_ID.fullmatch(text):
            raise PlainError(
                f"There is no model {text[:120]!r}: give bundled:NAME, an existing directory, or a "
                "Hub id such as HuggingFaceTB/SmolLM2-135M (add @revision to pin one)."
            )
        name, _, revision = text.partition("@")
        return cls("hub", name, revision or None)


def existing_path(text: str) -> Path | None:
    """Return the path of an existing file or folder, or None.

    Any text is accepted: one that is too long, has an unknown user (``~name``) or may not be read
    gives None.
    """
    try:
        path = Path(text).expanduser()
        return path if text.strip() and path.exists() else None
    except (OSError, ValueError, RuntimeError):
        return None
