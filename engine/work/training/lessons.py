"""What a model learns from, and what it is judged by meanwhile: never the examples that quality is measured on."""

from dataclasses import dataclass
from functools import singledispatch

import torch
from torch.nn.utils.rnn import pad_sequence

from engine.catalog.tasks import Calibration, Classification, ImageClassification, LanguageModeling, Task, TextClassification
from engine.errors import PlainError
from engine.work.folders import Folder
from engine.work.models import config_of, image_processor_of, tokenizer_of
from engine.work.tasks import calibration_batches
from engine.work.tasks.classification import channels_of, fitting_length, image_batches, targets_of
from engine.work.tasks.data import Examples, examples_of
from engine.work.tasks.sources import is_local

MOST, HELD_OUT = 8192, 256  # examples that are read to learn from; that quality is judged by meanwhile
WINDOWS, WINDOWS_HELD_OUT = 4096, 32  # the same of a text
EVERY = 10  # where data has no validation split, one example in so many is held out


@dataclass(frozen=True)
class Exercises:
    inputs: dict[str, torch.Tensor]  # (examples, ...) each
    targets: torch.Tensor  # (examples,) classes; the tokens themselves of a text, (examples, context)

    def __len__(self) -> int:
        return len(self.targets)

    def some(self, rows: torch.Tensor | slice) -> "Exercises":
        """Cut to the longest of these texts: what is padding in all of them goes."""
        inputs = {name: value[rows] for name, value in self.inputs.items()}
        if "attention_mask" in inputs:
            longest = max(1, int(inputs["attention_mask"].sum(1).max()))
            inputs = {name: value[:, :longest] for name, value in inputs.items()}
        return Exercises(inputs, self.targets[rows])


@dataclass(frozen=True)
class Lessons:
    train: Exercises
    held_out: Exercises


@singledispatch
def lessons_for(task: Task, calibration: Calibration | None, folder: Folder, most: int = MOST) -> Lessons:
    """At most ``most`` examples to learn from, on the CPU. Raises PlainError where there are none, or none with labels."""
    raise TypeError(f"{type(task).__name__} has no lessons")


@lessons_for.register
def _(task: LanguageModeling, calibration: Calibration | None, folder: Folder, most: int = MOST) -> Lessons:
    """Windows of the calibration text; the last ones are held out."""
    asked = calibration or Calibration(context=min(256, task.context))
    count = min(WINDOWS, most + WINDOWS_HELD_OUT)
    windows = torch.cat([batch["input_ids"] for batch in calibration_batches(asked.model_copy(update={"samples": count}), task, folder)])
    out = min(WINDOWS_HELD_OUT, len(windows) // 2)
    if not out:
        raise PlainError(
            f"The calibration text gives one window of {asked.context:,} tokens, and training takes two: give a longer calibration.text or a shorter "
            "calibration.context."
        )
    return Lessons(*(Exercises({"input_ids": part}, part) for part in windows.split([len(windows) - out, out])))


@lessons_for.register
def _(task: Classification, calibration: Calibration | None, folder: Folder, most: int = MOST) -> Lessons:
    """The task's train split, judged by its validation split; of data without splits, what quality is not measured on."""
    train = labelled(task, "train", folder, most)
    if task.data.startswith("bundled:") and task.split != "validation":
        return Lessons(train, labelled(task, "validation", folder, HELD_OUT))
    rows = torch.arange(len(train))
    held = rows % EVERY == EVERY - 1 if len(train) >= EVERY else rows == len(train) - 1
    return Lessons(train.some(rows[~held]), train.some(rows[held][:HELD_OUT]))


def labelled(task: Classification, split: str, folder: Folder, most: int) -> Exercises:
    own = task.model_copy(update={"split": split, "samples": min(most, MOST)})
    shared = is_local(task.data) or task.split == split
    examples = examples_of(own, skip=task.samples if shared else 0)
    if len(examples.inputs) < 2:
        raise PlainError(
            f"{examples.name} has {len(examples.inputs) or 'no'} labelled examples to train on besides those that quality is measured on; lower "
            "task.samples, or give data with a train split."
        )
    return Exercises(prepared(task, examples, folder), targets_of(examples, config_of(folder)))


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
