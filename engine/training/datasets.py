"""Training and validation data of a step, separate from the evaluation data."""

from dataclasses import dataclass
from functools import singledispatch

import torch
from PIL import Image
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from engine.errors import PlainError
from engine.evaluation import calibration_batches
from engine.evaluation.classification import channels_of, fitting_length, image_batches, targets_of
from engine.evaluation.data.examples import Examples, examples_of, pictures_of, text_of, texts_in
from engine.evaluation.data.sources import is_local, table_of
from engine.evaluation.data.tokens import tokens_of
from engine.models.loading import config_of, image_processor_of, tokenizer_of
from engine.models.model_source import Folder
from engine.recipe import Recipe
from engine.recipe.tasks import (
    Calibration,
    Classification,
    ImageClassification,
    LanguageModeling,
    Task,
    TextClassification,
    Training,
)
from engine.training.losses import UNLABELLED

# examples that are read to learn from; that quality is judged by meanwhile
MOST, HELD_OUT = 8192, 256
WINDOWS, WINDOWS_HELD_OUT = 4096, 32  # the same of a text
EVERY = 10  # where data has no validation split, one in this many examples is held out


@dataclass(frozen=True)
class Exercises:
    inputs: dict[str, torch.Tensor]  # (examples, ...) each
    # (examples,) classes; the tokens themselves of a text, (examples, context)
    targets: torch.Tensor
    # logits of teachers that were asked about all of them before, (examples, classes)
    said: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def some(self, rows: torch.Tensor | slice) -> "Exercises":
        """Cut to the longest of these texts: what is padding in all of them goes."""
        inputs = {name: value[rows] for name, value in self.inputs.items()}
        if "attention_mask" in inputs:
            longest = max(1, int(inputs["attention_mask"].sum(1).max()))
            inputs = {name: value[:, :longest] for name, value in inputs.items()}
        return Exercises(inputs, self.targets[rows], None if self.said is None else self.said[rows])

    def by_length(self) -> torch.Tensor:
        """Their rows, texts of one length side by side, the longest first: what memory does not
        suffice for fails at once.  (examples,)
        """
        mask = self.inputs.get("attention_mask")
        return (
            torch.arange(len(self))
            if mask is None
            else mask.sum(1).argsort(descending=True, stable=True)
        )


@dataclass(frozen=True)
class Lessons:
    train: Exercises
    held_out: Exercises


def lessons_of(recipe: Recipe, folder: Folder, most: int | None = None) -> Lessons:
    """Training data of a recipe, at most ``most`` examples, or as many as are read."""
    samples = recipe.training.samples if recipe.training else MOST
    return lessons_for(
        recipe.task, recipe.calibration, folder, samples if most is None else most, recipe.training
    )


@singledispatch
def lessons_for(
    task: Task,
    calibration: Calibration | None,
    folder: Folder,
    most: int = MOST,
    training: Training | None = None,
) -> Lessons:
    """Training data with at most ``most`` examples, on the CPU. Raises PlainError if there are
    none, or none with labels.
    """
    raise TypeError(f"{type(task).__name__} has no lessons")


@lessons_for.register
def lessons_for_language_modeling(
    task: LanguageModeling,
    calibration: Calibration | None,
    folder: Folder,
    most: int = MOST,
    training: Training | None = None,
) -> Lessons:
    """Windows of the calibration text, or of one to train on; the last ones are held out unless
    there is a text for that.
    """
    asked, data = calibration or Calibration(context=min(256, task.context)), training or Training()
    if data.unlabelled:
        raise PlainError(
            "A text has no labels, so none is without: name it under training.train, and "
            "leave training.unlabelled out."
        )
    if data.validation:
        train = windows_from(data.train, min(WINDOWS, most), asked, data, task, folder)
        return Lessons(
            as_exercises(train),
            as_exercises(
                windows_from(data.validation, WINDOWS_HELD_OUT, asked, data, task, folder)
            ),
        )
    windows = windows_from(
        data.train, min(WINDOWS, most + WINDOWS_HELD_OUT), asked, data, task, folder
    )
    out = min(WINDOWS_HELD_OUT, len(windows) // 2)
    if not out:
        name = "training.train" if data.train else "calibration.text"
        raise PlainError(
            f"The {'training' if data.train else 'calibration'} text gives one window of "
            f"{asked.context:,} tokens, and training takes two: give a "
            f"longer {name} or a shorter calibration.context."
        )
    return Lessons(*(as_exercises(part) for part in windows.split([len(windows) - out, out])))


def windows_from(
    source: str,
    count: int,
    asked: Calibration,
    data: Training,
    task: LanguageModeling,
    folder: Folder,
) -> torch.Tensor:
    """Windows of the training text, by default the calibration text: tokens and targets. (windows,
    2, context)
    """
    own = {"text": source, "text_column": data.text_column or asked.text_column} if source else {}
    wanted = asked.model_copy(update=own | {"samples": count})
    batches = calibration_batches(wanted, task, folder)
    return torch.stack(
        [
            torch.cat([batch["input_ids"] for batch in batches]),
            torch.cat([targets_in(batch) for batch in batches]),
        ],
        1,
    )


def targets_in(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Targets of a window, one position later than the position that predicts them. (windows,
    context)

    Masked tokens are predicted at their own position, so they are shifted by one; the last position
    has a special token, which is never masked.
    """
    return (
        pad(batch["labels"][:, :-1], (1, 0), value=UNLABELLED)
        if "labels" in batch
        else batch["input_ids"]
    )


def as_exercises(windows: torch.Tensor) -> Exercises:
    """Exercises from tokens and targets. (windows, 2, context)"""
    return Exercises({"input_ids": windows[:, 0]}, windows[:, 1])


@lessons_for.register
def lessons_for_classification(
    task: Classification,
    calibration: Calibration | None,
    folder: Folder,
    most: int = MOST,
    training: Training | None = None,
) -> Lessons:
    """The task's train split, judged by its validation split; of data without splits, what quality
    is not measured on. Or data to train on.
    """
    data = training or Training()
    most = min(most, data.samples)
    train = labelled(to_learn_from(task, data, data.train), "train", folder, most, task)
    refuse_one_class(train, folder)
    if data.validation or (
        not data.train and task.data.startswith("bundled:") and task.split != "validation"
    ):
        held_out = labelled(
            to_learn_from(task, data, data.validation),
            "validation",
            folder,
            min(HELD_OUT, data.samples),
            task,
        )
        return Lessons(with_unlabelled(train, task, data, folder, most), held_out)
    rows = torch.arange(len(train))
    held = rows % EVERY == EVERY - 1 if len(train) >= EVERY else rows == len(train) - 1
    return Lessons(
        with_unlabelled(train.some(rows[~held]), task, data, folder, most),
        train.some(rows[held][:HELD_OUT]),
    )


def to_learn_from(task: Classification, data: Training, source: str) -> Classification:
    """The task with its data in the place of what quality is measured on; the task itself where
    none is named.
    """
    if not source:
        return task
    columns = {"label_column": data.label_column or task.label_column}
    if isinstance(task, TextClassification):
        columns["text_column"] = data.text_column or task.text_column
    return task.model_copy(update={"data": source} | columns)


def labelled(
    mine: Classification, split: str, folder: Folder, most: int, task: Classification
) -> Exercises:
    """Examples of ``mine`` that ``task`` does not measure quality on."""
    own = mine.model_copy(update={"split": split, "samples": most})
    shared = mine.data == task.data and (is_local(task.data) or task.split == split)
    examples = examples_of(own, skip=task.samples if shared else 0)
    if len(examples.inputs) < 2:
        raise PlainError(
            f"{examples.name} has {len(examples.inputs) or 'no'} labeled examples to train on "
            "besides those that quality is measured on; lower "
            "task.samples, or give data with a train split."
        )
    return Exercises(prepared(mine, examples, folder), targets_of(examples, config_of(folder)))


def refuse_one_class(train: Exercises, folder: Folder) -> None:
    if len(classes := train.targets.unique()) == 1:
        name = config_of(folder).id2label.get(classes.item(), classes.item())
        raise PlainError(
            f"All {len(train):,} examples to learn from are of one class, {name}, so there "
            "is nothing to tell apart; give data with others."
        )


def with_unlabelled(
    train: Exercises, task: Classification, data: Training, folder: Folder, most: int
) -> Exercises:
    """The examples, and further ones that only a teacher says something about."""
    if not data.unlabelled:
        return train
    found = unlabelled(task, data)[:most]
    more = prepared(task, Examples(found, [], (), data.unlabelled, ""), folder)
    padding = {"input_ids": getattr(config_of(folder), "pad_token_id", None) or 0}
    inputs = {
        name: stacked(train.inputs[name], more[name], padding.get(name, 0)) for name in train.inputs
    }
    return Exercises(inputs, torch.cat([train.targets, torch.full((len(found),), UNLABELLED)]))


def unlabelled(
    task: Classification, data: Training
) -> list[str] | list[tuple[str, str]] | list[Image.Image]:
    if isinstance(task, ImageClassification):
        return pictures_of(data.unlabelled, task.image_column)
    if task.text_pair_column:
        table = table_of(data.unlabelled, "unlabelled")
        return texts_in(
            table, data.text_column or task.text_column, task.text_pair_column, range(len(table))
        )
    return text_of(data.unlabelled, data.text_column or task.text_column, "unlabelled").texts


def stacked(one: torch.Tensor, other: torch.Tensor, padding: int) -> torch.Tensor:
    """Texts padded to one length, pictures as they are.  (examples, tokens) or (examples, channels,
    height, width)
    """
    if one.ndim > 2:
        return torch.cat([one, other])
    longest = max(one.shape[1], other.shape[1])
    return torch.cat(
        [pad(each, (0, longest - each.shape[1]), value=padding) for each in (one, other)]
    )


@singledispatch
def prepared(task: Classification, examples: Examples, folder: Folder) -> dict[str, torch.Tensor]:
    """Inputs of the model."""
    raise TypeError(f"{type(task).__name__} is not prepared")


@prepared.register
def prepared_image_classification(
    task: ImageClassification, examples: Examples, folder: Folder
) -> dict[str, torch.Tensor]:
    batches = image_batches(
        examples.inputs, image_processor_of(folder), channels_of(config_of(folder)), 256
    )
    return {"pixel_values": torch.cat([inputs["pixel_values"] for _, inputs in batches])}


@prepared.register
def prepared_text_classification(
    task: TextClassification, examples: Examples, folder: Folder
) -> dict[str, torch.Tensor]:
    """Padded on the right, with a mask that says where."""
    tokenizer, config = tokenizer_of(folder), config_of(folder)
    length = fitting_length(task.length, config, tokenizer)
    encoded = tokens_of(examples.inputs, tokenizer, length)
    rows = {
        name: [torch.tensor(row, dtype=torch.int64) for row in values]
        for name, values in encoded.items()
    }
    padded = {name: pad_sequence(each, batch_first=True) for name, each in rows.items()}
    padded["input_ids"] = pad_sequence(
        rows["input_ids"], batch_first=True, padding_value=config.pad_token_id or 0
    )
    return padded | {
        "attention_mask": pad_sequence(
            [torch.ones_like(row) for row in rows["input_ids"]], batch_first=True
        )
    }
