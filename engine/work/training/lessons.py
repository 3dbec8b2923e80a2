"""What a model learns from, and what it is judged by meanwhile: never the examples that quality is measured on."""

from dataclasses import dataclass
from functools import singledispatch

import torch
from PIL import Image
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from engine.catalog.tasks import Calibration, Classification, ImageClassification, LanguageModeling, Task, TextClassification, Training
from engine.errors import PlainError
from engine.recipe import Recipe
from engine.work.folders import Folder
from engine.work.models import config_of, image_processor_of, tokenizer_of
from engine.work.tasks import calibration_batches
from engine.work.tasks.classification import channels_of, fitting_length, image_batches, targets_of
from engine.work.tasks.data import Examples, examples_of, pictures_of, text_of
from engine.work.tasks.sources import is_local
from engine.work.training.losses import UNLABELLED

MOST, HELD_OUT = 8192, 256  # examples that are read to learn from; that quality is judged by meanwhile
WINDOWS, WINDOWS_HELD_OUT = 4096, 32  # the same of a text
EVERY = 10  # where data has no validation split, one example in so many is held out


@dataclass(frozen=True)
class Exercises:
    inputs: dict[str, torch.Tensor]  # (examples, ...) each
    targets: torch.Tensor  # (examples,) classes; the tokens themselves of a text, (examples, context)
    said: torch.Tensor | None = None  # logits of teachers that were asked about all of them before, (examples, classes)

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
        """Their rows, texts of one length side by side, the longest first: what memory does not suffice for fails at once.  (examples,)"""
        mask = self.inputs.get("attention_mask")
        return torch.arange(len(self)) if mask is None else mask.sum(1).argsort(descending=True, stable=True)


@dataclass(frozen=True)
class Lessons:
    train: Exercises
    held_out: Exercises


def lessons_of(recipe: Recipe, folder: Folder, most: int | None = None) -> Lessons:
    """What a recipe has its steps learn from. At most ``most`` examples, or as many as are ever read."""
    samples = recipe.training.samples if recipe.training else MOST
    return lessons_for(recipe.task, recipe.calibration, folder, samples if most is None else most, recipe.training)


@singledispatch
def lessons_for(task: Task, calibration: Calibration | None, folder: Folder, most: int = MOST, training: Training | None = None) -> Lessons:
    """At most ``most`` examples to learn from, on the CPU. Raises PlainError where there are none, or none with labels."""
    raise TypeError(f"{type(task).__name__} has no lessons")


@lessons_for.register
def _(task: LanguageModeling, calibration: Calibration | None, folder: Folder, most: int = MOST, training: Training | None = None) -> Lessons:
    """Windows of the calibration text, or of one to train on; the last ones are held out unless there is a text for that."""
    asked, data = calibration or Calibration(context=min(256, task.context)), training or Training()
    if data.unlabelled:
        raise PlainError("A text has no labels, so none is without: name it under training.train, and leave training.unlabelled out.")
    if data.validation:
        train = windows_from(data.train, min(WINDOWS, most), asked, data, task, folder)
        return Lessons(as_exercises(train), as_exercises(windows_from(data.validation, WINDOWS_HELD_OUT, asked, data, task, folder)))
    windows = windows_from(data.train, min(WINDOWS, most + WINDOWS_HELD_OUT), asked, data, task, folder)
    out = min(WINDOWS_HELD_OUT, len(windows) // 2)
    if not out:
        name = "training.train" if data.train else "calibration.text"
        raise PlainError(
            f"The {'training' if data.train else 'calibration'} text gives one window of {asked.context:,} tokens, and training takes two: give a "
            f"longer {name} or a shorter calibration.context."
        )
    return Lessons(*(as_exercises(part) for part in windows.split([len(windows) - out, out])))


def windows_from(source: str, count: int, asked: Calibration, data: Training, task: LanguageModeling, folder: Folder) -> torch.Tensor:
    """Of the calibration text where no other is named.  (windows, context)"""
    own = {"text": source, "text_column": data.text_column or asked.text_column} if source else {}
    wanted = asked.model_copy(update=own | {"samples": count})
    return torch.cat([batch["input_ids"] for batch in calibration_batches(wanted, task, folder)])


def as_exercises(windows: torch.Tensor) -> Exercises:
    return Exercises({"input_ids": windows}, windows)


@lessons_for.register
def _(task: Classification, calibration: Calibration | None, folder: Folder, most: int = MOST, training: Training | None = None) -> Lessons:
    """The task's train split, judged by its validation split; of data without splits, what quality is not measured on. Or data to train on."""
    data = training or Training()
    most = min(most, data.samples)
    train = labelled(to_learn_from(task, data, data.train), "train", folder, most, task)
    refuse_one_class(train, folder)
    if data.validation or (not data.train and task.data.startswith("bundled:") and task.split != "validation"):
        held_out = labelled(to_learn_from(task, data, data.validation), "validation", folder, min(HELD_OUT, data.samples), task)
        return Lessons(with_unlabelled(train, task, data, folder, most), held_out)
    rows = torch.arange(len(train))
    held = rows % EVERY == EVERY - 1 if len(train) >= EVERY else rows == len(train) - 1
    return Lessons(with_unlabelled(train.some(rows[~held]), task, data, folder, most), train.some(rows[held][:HELD_OUT]))


def to_learn_from(task: Classification, data: Training, source: str) -> Classification:
    """The task with its data in the place of what quality is measured on; the task itself where none is named."""
    if not source:
        return task
    columns = {"label_column": data.label_column or task.label_column}
    if isinstance(task, TextClassification):
        columns["text_column"] = data.text_column or task.text_column
    return task.model_copy(update={"data": source} | columns)


def labelled(mine: Classification, split: str, folder: Folder, most: int, task: Classification) -> Exercises:
    """Examples of ``mine`` that ``task`` does not measure quality on."""
    own = mine.model_copy(update={"split": split, "samples": most})
    shared = mine.data == task.data and (is_local(task.data) or task.split == split)
    examples = examples_of(own, skip=task.samples if shared else 0)
    if len(examples.inputs) < 2:
        raise PlainError(
            f"{examples.name} has {len(examples.inputs) or 'no'} labelled examples to train on besides those that quality is measured on; lower "
            "task.samples, or give data with a train split."
        )
    return Exercises(prepared(mine, examples, folder), targets_of(examples, config_of(folder)))


def refuse_one_class(train: Exercises, folder: Folder) -> None:
    if len(classes := train.targets.unique()) == 1:
        name = config_of(folder).id2label.get(classes.item(), classes.item())
        raise PlainError(
            f"All {len(train):,} examples to learn from are of one class, {name}, so there is nothing to tell apart; give data with others."
        )


def with_unlabelled(train: Exercises, task: Classification, data: Training, folder: Folder, most: int) -> Exercises:
    """The examples, and further ones that only a teacher says something about."""
    if not data.unlabelled:
        return train
    found = unlabelled(task, data)[:most]
    more = prepared(task, Examples(found, [], (), data.unlabelled, ""), folder)
    padding = {"input_ids": getattr(config_of(folder), "pad_token_id", None) or 0}
    inputs = {name: stacked(train.inputs[name], more[name], padding.get(name, 0)) for name in train.inputs}
    return Exercises(inputs, torch.cat([train.targets, torch.full((len(found),), UNLABELLED)]))


def unlabelled(task: Classification, data: Training) -> list[str] | list[Image.Image]:
    if isinstance(task, ImageClassification):
        return pictures_of(data.unlabelled, task.image_column)
    return text_of(data.unlabelled, data.text_column or task.text_column, "unlabelled").texts


def stacked(one: torch.Tensor, other: torch.Tensor, padding: int) -> torch.Tensor:
    """Texts padded to one length, pictures as they are.  (examples, tokens) or (examples, channels, height, width)"""
    if one.ndim > 2:
        return torch.cat([one, other])
    longest = max(one.shape[1], other.shape[1])
    return torch.cat([pad(each, (0, longest - each.shape[1]), value=padding) for each in (one, other)])


@singledispatch
def prepared(task: Classification, examples: Examples, folder: Folder) -> dict[str, torch.Tensor]:
    """What the model takes."""
    raise TypeError(f"{type(task).__name__} is not prepared")


@prepared.register
def _(task: ImageClassification, examples: Examples, folder: Folder) -> dict[str, torch.Tensor]:
    batches = image_batches(examples.inputs, image_processor_of(folder), channels_of(config_of(folder)), 256)
    return {"pixel_values": torch.cat([inputs["pixel_values"] for _, inputs in batches])}


@prepared.register
def _(task: TextClassification, examples: Examples, folder: Folder) -> dict[str, torch.Tensor]:
    """Padded on the right, with a mask that says where."""
    tokenizer, config = tokenizer_of(folder), config_of(folder)
    length = fitting_length(task.length, config, tokenizer)
    rows = tokenizer(examples.inputs, truncation=True, max_length=length, return_attention_mask=False)["input_ids"]
    tokens = [torch.tensor(row, dtype=torch.int64) for row in rows]
    mask = pad_sequence([torch.ones_like(row) for row in tokens], batch_first=True)
    return {"input_ids": pad_sequence(tokens, batch_first=True, padding_value=config.pad_token_id or 0), "attention_mask": mask}
