"""How quality is measured: the task, its data and the protocol, and the calibration data that methods may look at."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from engine.catalog.technique import Frozen

FILES = (".txt", ".csv", ".json", ".jsonl", ".parquet")

Source = Annotated[str, Field(min_length=1, description="bundled:NAME, a Hub dataset id, or the path of a .txt, .csv, .json(l) or .parquet file.")]
Also = Annotated[str, Field(description="Further splits, or files of the same columns, that every model is measured on besides, by commas.")]


def is_file(source: str) -> bool:
    """By its name; it may be missing."""
    return Path(source).suffix.lower() in FILES


class Judged(Frozen):
    """What all tasks share: a ``source`` of data, the ``split`` that a run is judged by, and others that it is measured on besides."""

    @property
    def further(self) -> tuple[str, ...]:
        """Further splits and files."""
        return tuple(name.strip() for name in self.also.split(",") if name.strip())

    @model_validator(mode="after")
    def measured_once(self) -> Self:
        """Under a name of its own each."""
        seen = {self.split, self.source}
        for name in self.further:
            if name in seen:
                raise ValueError(f"also names {name}, which quality is measured on already; name another split or file, or leave it out")
            if is_file(self.source) and not is_file(name):
                raise ValueError(f"also names {name}, but {self.source} is one file without splits; give another file, or leave it out")
            seen.add(name)
        return self


class LanguageModeling(Judged):
    """Perplexity over non-overlapping windows of a text."""

    kind: Literal["language-modeling"] = "language-modeling"
    text: Source = "bundled:docs"
    text_column: str = "text"
    split: str = "test"
    context: int = Field(256, ge=2, le=131072, description="Tokens of one window.")
    tokens: int = Field(65536, ge=2, description="At most this many tokens are read.")
    also: Also = ""

    @property
    def source(self) -> str:
        return self.text


class Classification(Judged):
    """What both classification tasks share."""

    data: Source
    label_column: str = "label"
    split: str = "test"
    samples: int = Field(2000, ge=1, description="At most this many examples are read.")
    also: Also = ""

    @property
    def source(self) -> str:
        return self.data


class TextClassification(Classification):
    """Accuracy, macro precision, recall and F1 of a sequence classifier."""

    kind: Literal["text-classification"] = "text-classification"
    data: Source = "bundled:docs-libraries"
    text_column: str = "text"
    length: int = Field(128, ge=2, le=8192, description="Tokens of one text at most; longer ones are cut.")


class ImageClassification(Classification):
    """Accuracy, macro precision, recall and F1 of an image classifier."""

    kind: Literal["image-classification"] = "image-classification"
    data: Source = "bundled:digits"
    image_column: str = "image"


Task = Annotated[LanguageModeling | TextClassification | ImageClassification, Field(discriminator="kind")]


def by_split(task: Task) -> dict[str, Task]:
    """What quality is measured at, under the name of each split or file; what a run is judged by stands first."""
    tasks = {task.split: task.model_copy(update={"also": ""})}
    for name in task.further:
        if is_file(name):
            data, stem = "text" if isinstance(task, LanguageModeling) else "data", Path(name).stem
            tasks[stem if stem not in tasks else name] = tasks[task.split].model_copy(update={data: name})
        else:
            tasks[name] = tasks[task.split].model_copy(update={"split": name})
    return tasks


class Calibration(Frozen):
    """Inputs that methods and error measures may look at; never the ones quality is measured on."""

    text: Source = "bundled:docs"
    text_column: str = "text"
    split: str = "train"
    samples: int = Field(64, ge=1, le=4096)
    context: int = Field(256, ge=2, le=131072)


class Training(Frozen):
    """What techniques that train learn from, and what judges them meanwhile; never what quality is measured on. Left empty, it is the task's own."""

    train: str = Field("", description="Labelled examples or a text to learn from: bundled:NAME, a Hub dataset id, or a local file.")
    validation: str = Field("", description="What quality is judged by meanwhile; empty: the task's validation split, or every tenth example.")
    unlabelled: str = Field("", description="Further examples for a student that listens to its teacher; labels are not looked at.")
    text_column: str = Field("", description="Of these files; empty: as the task has it.")
    label_column: str = Field("", description="Of these files; empty: as the task has it.")
    samples: int = Field(8192, ge=2, le=1_000_000, description="At most this many examples are read from each.")
    epochs: float | None = Field(None, gt=0, le=1000, description="How often every example is learnt from, in place of a number of steps.")
