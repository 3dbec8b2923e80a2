"""The models that lie in assets/, and how any model is named."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.catalog.tasks import ImageClassification, LanguageModeling, Task, TextClassification
from engine.errors import PlainError

ASSETS = Path(__file__).resolve().parents[2] / "assets"
HUB_ID = re.compile(r"(?:[\w.-]+/)?[\w.-]+(?:@[\w./-]+)?", re.ASCII)


@dataclass(frozen=True)
class Bundled:
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


BUNDLED = {
    model.name: model
    for model in (
        Bundled("docs-lm", "Documentation writer", "A small Llama that writes Python documentation.", LanguageModeling(), "perplexity"),
        Bundled("docs-classifier", "Library detective", "A small BERT: which library is this documentation from?", TextClassification(), "accuracy"),
        Bundled("digits-cnn", "Digit reader", "A small ResNet that reads handwritten digits.", ImageClassification(), "accuracy"),
    )
}


@dataclass(frozen=True)
class ModelName:
    """A model's name taken apart."""

    kind: Literal["bundled", "directory", "hub"]
    name: str  # bundled name, absolute path, or Hub id
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> "ModelName":
        """Raises PlainError when the text cannot name a model."""
        text = text.strip()
        if text.startswith("bundled:"):
            name = text.removeprefix("bundled:")
            if name not in BUNDLED:
                raise PlainError(f"There is no bundled model named {name[:80]!r}; the bundled ones are {', '.join(BUNDLED)}.")
            return cls("bundled", name)
        path = existing(text)
        if path and path.is_dir():
            return cls("directory", str(path.resolve()))
        if len(text) > 200 or not HUB_ID.fullmatch(text):
            raise PlainError(
                f"There is no model {text[:120]!r}: give bundled:NAME, an existing directory, or a Hub id such as HuggingFaceTB/SmolLM2-135M "
                "(add @revision to pin one)."
            )
        name, _, revision = text.partition("@")
        return cls("hub", name, revision or None)


def existing(text: str) -> Path | None:
    """The file or folder a text names, if there is one. Any text may be asked about: too long, ``~nobody`` or not ours to see is None."""
    try:
        path = Path(text).expanduser()
        return path if text.strip() and path.exists() else None
    except (OSError, ValueError, RuntimeError):
        return None
