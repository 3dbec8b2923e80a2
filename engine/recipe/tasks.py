"""Tasks that measure quality, with their data and protocol, and the data for calibration and
training.
"""

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from engine.config.technique import FrozenModel
from engine.errors import option_name

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
        title="Further splits",
        description="Further splits, or files with the same columns, to evaluate on, separated by "
        "commas.",
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

    section: ClassVar[str] = "task"

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
                    f"{option_name(self, 'also')} lists {name}, which is evaluated "
                    "already; give another split or file, or remove it"
                )
            if is_data_file(self.source) and not is_data_file(name):
                raise ValueError(
                    f"{option_name(self, 'also')} lists {name}, but {self.source} is "
                    "a file without splits; give another file, or remove it"
                )
            seen.add(name)
        return self


class LanguageModeling(EvaluationTask):
    """Perplexity over non-overlapping windows of a text."""

    kind: Literal["language-modeling"] = "language-modeling"
    text: Source = Field("bundled:docs", title="Text")
    text_column: str = Field("text", title="Text column")
    split: str = Field("test", title="Split")
    context: int = Field(
        256, title="Context (tokens)", ge=2, le=131072, description="Tokens per window."
    )
    tokens: int = Field(
        65536,
        title="Tokens to evaluate",
        ge=2,
        description="Maximum number of tokens to evaluate.",
    )
    bos: Literal["auto", "always", "never"] = Field(
        "auto",
        title="Beginning-of-sequence token (BOS)",
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
        title="Masked share",
        gt=0,
        lt=1,
        description="Share of tokens per window that is masked and predicted (BERT: 0.15).",
    )


class Classification(EvaluationTask):
    """Fields shared by both classification tasks."""

    data: Source = Field(title="Labeled data")
    label_column: str = Field("label", title="Label column")
    split: str = Field("test", title="Split")
    samples: int = Field(
        2000,
        title="Examples to evaluate",
        ge=1,
        description="Maximum number of examples to evaluate.",
    )
    also: Also = ""

    @property
    def source(self) -> str:
        return self.data


class TextClassification(Classification):
    """Accuracy, macro precision, recall and F1 of a sequence classifier."""

    kind: Literal["text-classification"] = "text-classification"
    data: Source = Field("bundled:docs-libraries", title="Labeled data")
    text_column: str = Field("text", title="Text column")
    text_pair_column: str = Field(
        "",
        title="Second text column",
        description=(
            "Column of the second text, for models that compare two texts (NLI, paraphrases, "
            "question answering). Empty: single texts."
        ),
    )
    length: int = Field(
        128,
        title="Maximum length (tokens)",
        ge=2,
        le=8192,
        description="Maximum number of tokens per text; longer texts are truncated.",
    )


class ImageClassification(Classification):
    """Accuracy, macro precision, recall and F1 of an image classifier."""

    kind: Literal["image-classification"] = "image-classification"
    data: Source = Field("bundled:digits", title="Labeled data")
    image_column: str = Field("image", title="Image column")


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

    section: ClassVar[str] = "calibration"

    text: Source = Field("bundled:docs", title="Calibration text")
    text_column: str = Field("text", title="Calibration text column")
    split: str = Field("train", title="Calibration split")
    samples: int = Field(64, title="Calibration examples", ge=1, le=4096)
    context: int = Field(256, title="Calibration context (tokens)", ge=2, le=131072)


class Training(FrozenModel):
    """Training and validation data, never the data that quality is measured on. Empty fields use
    the task's data.
    """

    section: ClassVar[str] = "training"

    train: str = Field(
        "",
        title="Train on",
        description=(
            "Labeled examples or a text to train on: bundled:NAME, a Hub dataset id, or a local "
            "file."
        ),
    )
    validation: str = Field(
        "",
        title="Validation data",
        description=(
            "Held-out data for evaluations during training. Empty: the task's validation split, "
            "or every tenth example."
        ),
    )
    unlabelled: str = Field(
        "",
        title="Unlabeled examples",
        description="Further examples for distillation; their labels are ignored.",
    )
    text_column: str = Field(
        "",
        title="Training text column",
        description="Column in these files. Empty: the task's column.",
    )
    label_column: str = Field(
        "",
        title="Training label column",
        description="Column in these files. Empty: the task's column.",
    )
    samples: int = Field(
        8192,
        title="Training examples",
        ge=2,
        le=1_000_000,
        description="Maximum number of examples to read from each.",
    )
    epochs: float | None = Field(
        None,
        title="Epochs",
        gt=0,
        le=1000,
        description="Passes over the training data, instead of a number of steps.",
    )
