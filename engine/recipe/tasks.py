"""Tasks that measure quality, with their data and protocol, and the data for calibration and
training.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from engine.config.technique import FrozenModel

FILES = (".txt", ".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet")
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")  # suffixes that may follow a text file's

Source = Annotated[
    str,
    Field(
        min_length=1,
        description="bundled:NAME, a Hub dataset id, or the path of a .txt, .csv, .tsv, .json(l) "
        "or .parquet file; text files may be compressed "
        "(.gz, .bz2, .xz, .zst).",
    ),
]
Also = Annotated[
    str,
    Field(
        description="Further splits, or files with the same columns, to evaluate on, separated by "
        "commas."
    ),
]


def file_kind(source: str) -> str:
    """Return the suffix of a file in lower case, without a compression suffix: ``.csv`` for
    ``a.CSV.gz``.
    """
    path = Path(source)
    return (Path(path.stem) if path.suffix.lower() in COMPRESSIONS else path).suffix.lower()


def is_data_file(source: str) -> bool:
    """Return True if a source's suffix is that of a data file. The file may be missing."""
    return file_kind(source) in FILES


class EvaluationTask(FrozenModel):
    """Fields shared by all tasks: a ``source`` of data, the ``split`` that runs are compared by,
    and further ones.
    """

    @property
    def further(self) -> tuple[str, ...]:
        """Names of further splits and files."""
        return tuple(name.strip() for name in self.also.split(",") if name.strip())

    @model_validator(mode="after")
    def check_unique_splits(self) -> Self:
        """Check that each split and file is named once.

        Raises ValueError if a name is repeated or cannot be read with the source.
        """
        seen = {self.split, self.source}
        for name in self.further:
            if name in seen:
                raise ValueError(
                    f"also lists {name}, which is evaluated already; give another split or "
                    "file, or remove it"
                )
            if is_data_file(self.source) and not is_data_file(name):
                raise ValueError(
                    f"also lists {name}, but {self.source} is a file without splits; give "
                    "another file, or remove it"
                )
            seen.add(name)
        return self


class LanguageModeling(EvaluationTask):
    """Perplexity over non-overlapping windows of a text."""

    kind: Literal["language-modeling"] = "language-modeling"
    text: Source = "bundled:docs"
    text_column: str = "text"
    split: str = "test"
    context: int = Field(256, ge=2, le=131072, description="Tokens per window.")
    tokens: int = Field(65536, ge=2, description="Maximum number of tokens to evaluate.")
    bos: Literal["auto", "always", "never"] = Field(
        "auto",
        description="Start each window with the beginning-of-sequence token, as context that is "
        "not scored. auto: if the "
        "tokenizer adds one. Applies to calibration windows too.",
    )
    also: Also = ""

    @property
    def source(self) -> str:
        return self.text


class MaskedLanguageModeling(LanguageModeling):
    """Loss and accuracy of a masked language model, such as BERT, on masked tokens."""

    kind: Literal["masked-language-modeling"] = "masked-language-modeling"
    mask_share: float = Field(
        0.15,
        gt=0,
        lt=1,
        description="Share of tokens per window that is masked and predicted (BERT: 0.15).",
    )


class Classification(EvaluationTask):
    """Fields shared by both classification tasks."""

    data: Source
    label_column: str = "label"
    split: str = "test"
    samples: int = Field(2000, ge=1, description="Maximum number of examples to evaluate.")
    also: Also = ""

    @property
    def source(self) -> str:
        return self.data


class TextClassification(Classification):
    """Accuracy, macro precision, recall and F1 of a sequence classifier."""

    kind: Literal["text-classification"] = "text-classification"
    data: Source = "bundled:docs-libraries"
    text_column: str = "text"
    text_pair_column: str = Field(
        "",
        description=(
            "Column of the second text, for models that compare two texts (NLI, paraphrases, "
            "question answering). Empty: single texts."
        ),
    )
    length: int = Field(
        128,
        ge=2,
        le=8192,
        description="Maximum number of tokens per text; longer texts are truncated.",
    )


class ImageClassification(Classification):
    """Accuracy, macro precision, recall and F1 of an image classifier."""

    kind: Literal["image-classification"] = "image-classification"
    data: Source = "bundled:digits"
    image_column: str = "image"


Task = Annotated[
    LanguageModeling | MaskedLanguageModeling | TextClassification | ImageClassification,
    Field(discriminator="kind"),
]


def tasks_by_split(task: Task) -> dict[str, Task]:
    """Return one task per split or file by its name, starting with the one that runs are compared
    by.
    """
    tasks = {task.split: task.model_copy(update={"also": ""})}
    for name in task.further:
        if is_data_file(name):
            data, stem = "text" if isinstance(task, LanguageModeling) else "data", Path(name).stem
            tasks[stem if stem not in tasks else name] = tasks[task.split].model_copy(
                update={data: name}
            )
        else:
            tasks[name] = tasks[task.split].model_copy(update={"split": name})
    return tasks


class Calibration(FrozenModel):
    """Data for statistics and layer errors, never the data that quality is measured on."""

    text: Source = "bundled:docs"
    text_column: str = "text"
    split: str = "train"
    samples: int = Field(64, ge=1, le=4096)
    context: int = Field(256, ge=2, le=131072)


class Training(FrozenModel):
    """Training and validation data, never the data that quality is measured on. Empty fields use
    the task's data.
    """

    train: str = Field(
        "",
        description=(
            "Labeled examples or a text to train on: bundled:NAME, a Hub dataset id, or a local "
            "file."
        ),
    )
    validation: str = Field(
        "",
        description=(
            "Held-out data for evaluations during training. Empty: the task's validation split, "
            "or every tenth example."
        ),
    )
    unlabelled: str = Field(
        "", description="Further examples for distillation; their labels are ignored."
    )
    text_column: str = Field("", description="Column in these files. Empty: the task's column.")
    label_column: str = Field("", description="Column in these files. Empty: the task's column.")
    samples: int = Field(
        8192, ge=2, le=1_000_000, description="Maximum number of examples to read from each."
    )
    epochs: float | None = Field(
        None,
        gt=0,
        le=1000,
        description="Passes over the training data, instead of a number of steps.",
    )
