"""Training and validation data of a step, separate from the evaluation data."""

from dataclasses import dataclass
from functools import singledispatch

import torch
from PIL import Image
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from engine.errors import PlainError, option_name
from engine.evaluation import calibration_batches
from engine.evaluation.classification import (
    checked_length,
    class_targets,
    image_batches,
    image_channels,
)
from engine.evaluation.data.examples import (
    Examples,
    load_examples,
    load_text,
    texts_in,
    training_images,
)
from engine.evaluation.data.sources import is_local, load_table
from engine.evaluation.data.tokens import encoded_texts
from engine.models.loading import config_of, image_processor_of, tokenizer_of
from engine.models.model_source import ModelSource
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
from engine.training.losses import IGNORE_INDEX

# maximum training examples, and held-out examples for evaluation during training
MAX_EXAMPLES, MAX_HELD_OUT = 8192, 256
MAX_WINDOWS, MAX_HELD_OUT_WINDOWS = 4096, 32  # the same for windows of text
HELD_OUT_EVERY = 10  # without a validation split, one in this many examples is held out


@dataclass(frozen=True)
class EncodedExamples:
    inputs: dict[str, torch.Tensor]  # (examples, ...) each
    # (examples,) classes; for text, the tokens themselves, (examples, context)
    targets: torch.Tensor
    # logits of teachers, computed in advance, (examples, classes)
    teacher_logits: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def subset(self, rows: torch.Tensor | slice) -> "EncodedExamples":
        """Examples without columns that are padding in all rows."""
        inputs = {name: value[rows] for name, value in self.inputs.items()}
        if "attention_mask" in inputs:
            longest = max(1, int(inputs["attention_mask"].sum(1).max()))
            inputs = {name: value[:, :longest] for name, value in inputs.items()}
        return EncodedExamples(
            inputs,
            self.targets[rows],
            None if self.teacher_logits is None else self.teacher_logits[rows],
        )

    def length_order(self) -> torch.Tensor:
        """Order of the examples by length, longest first, so that too little memory fails at once.
        (examples,)
        """
        mask = self.inputs.get("attention_mask")
        return (
            torch.arange(len(self))
            if mask is None
            else mask.sum(1).argsort(descending=True, stable=True)
        )


@dataclass(frozen=True)
class TrainingData:
    train: EncodedExamples
    held_out: EncodedExamples


def load_recipe_training_data(
    recipe: Recipe, folder: ModelSource, max_examples: int | None = None
) -> TrainingData:
    """Training data of a recipe, at most ``max_examples`` examples, or as many as are read."""
    samples = recipe.training.samples if recipe.training else MAX_EXAMPLES
    return load_training_data(
        recipe.task,
        recipe.calibration,
        folder,
        samples if max_examples is None else max_examples,
        recipe.training,
    )


@singledispatch
def load_training_data(
    task: Task,
    calibration: Calibration | None,
    folder: ModelSource,
    max_examples: int = MAX_EXAMPLES,
    training: Training | None = None,
) -> TrainingData:
    """Training data with at most ``max_examples`` examples, on the CPU. Raises PlainError if there
    are none, or none with labels.
    """
    raise TypeError(f"{type(task).__name__} has no training data")


@load_training_data.register
def load_training_data_language_modeling(
    task: LanguageModeling,
    calibration: Calibration | None,
    folder: ModelSource,
    max_examples: int = MAX_EXAMPLES,
    training: Training | None = None,
) -> TrainingData:
    """Windows of the calibration or training text; the last ones are held out unless there is a
    validation text.
    """
    settings, data = (
        calibration or Calibration(context=min(256, task.context)),
        training or Training(),
    )
    if data.unlabelled:
        raise PlainError(
            "Plain text has no labels; name it under "
            f"{option_name(data, 'train')}, and remove {option_name(data, 'unlabelled')}."
        )
    if data.validation:
        train = training_windows(
            data.train, min(MAX_WINDOWS, max_examples), settings, data, task, folder
        )
        return TrainingData(
            encoded_windows(train),
            encoded_windows(
                training_windows(
                    data.validation, MAX_HELD_OUT_WINDOWS, settings, data, task, folder
                )
            ),
        )
    windows = training_windows(
        data.train,
        min(MAX_WINDOWS, max_examples + MAX_HELD_OUT_WINDOWS),
        settings,
        data,
        task,
        folder,
    )
    out = min(MAX_HELD_OUT_WINDOWS, len(windows) // 2)
    if not out:
        name = option_name(data, "train") if data.train else option_name(settings, "text")
        raise PlainError(
            f"The {'training' if data.train else 'calibration'} text gives one window of "
            f"{settings.context:,} tokens, and training takes two: give a "
            f"longer {name} or a shorter {option_name(settings, 'context')}."
        )
    return TrainingData(
        *(encoded_windows(part) for part in windows.split([len(windows) - out, out]))
    )


def training_windows(
    source: str,
    count: int,
    calibration: Calibration,
    data: Training,
    task: LanguageModeling,
    folder: ModelSource,
) -> torch.Tensor:
    """Windows of the training text, by default the calibration text: tokens and targets. (windows,
    2, context)
    """
    overrides = (
        {"text": source, "text_column": data.text_column or calibration.text_column}
        if source
        else {}
    )
    windows_config = calibration.model_copy(update=overrides | {"samples": count})
    batches = calibration_batches(windows_config, task, folder)
    return torch.stack(
        [
            torch.cat([batch["input_ids"] for batch in batches]),
            torch.cat([window_targets(batch) for batch in batches]),
        ],
        1,
    )


def window_targets(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Targets of a window, one position later than the position that predicts them. (windows,
    context)

    Masked tokens are predicted at their own position, so they are shifted by one; the last position
    has a special token, which is never masked.
    """
    return (
        pad(batch["labels"][:, :-1], (1, 0), value=IGNORE_INDEX)
        if "labels" in batch
        else batch["input_ids"]
    )


def encoded_windows(windows: torch.Tensor) -> EncodedExamples:
    """Examples from tokens and targets. (windows, 2, context)"""
    return EncodedExamples({"input_ids": windows[:, 0]}, windows[:, 1])


@load_training_data.register
def load_training_data_classification(
    task: Classification,
    calibration: Calibration | None,
    folder: ModelSource,
    max_examples: int = MAX_EXAMPLES,
    training: Training | None = None,
) -> TrainingData:
    """Train split of the task with its validation split as held-out examples; for data without
    splits, examples that are not evaluated. Or the recipe's training data.
    """
    data = training or Training()
    max_examples = min(max_examples, data.samples)
    train = labeled_examples(
        task_with_data(task, data, data.train), "train", folder, max_examples, task
    )
    check_several_classes(train, folder)
    if data.validation or (
        not data.train and task.data.startswith("bundled:") and task.split != "validation"
    ):
        held_out = labeled_examples(
            task_with_data(task, data, data.validation),
            "validation",
            folder,
            min(MAX_HELD_OUT, data.samples),
            task,
        )
        return TrainingData(
            with_unlabeled_examples(train, task, data, folder, max_examples), held_out
        )
    rows = torch.arange(len(train))
    is_held_out = (
        rows % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
        if len(train) >= HELD_OUT_EVERY
        else rows == len(train) - 1
    )
    return TrainingData(
        with_unlabeled_examples(train.subset(rows[~is_held_out]), task, data, folder, max_examples),
        train.subset(rows[is_held_out][:MAX_HELD_OUT]),
    )


def task_with_data(task: Classification, data: Training, source: str) -> Classification:
    """The task with other data; the task itself if ``source`` is empty."""
    if not source:
        return task
    columns = {"label_column": data.label_column or task.label_column}
    if isinstance(task, TextClassification):
        columns["text_column"] = data.text_column or task.text_column
    return task.model_copy(update={"data": source} | columns)


def labeled_examples(
    source_task: Classification,
    split: str,
    folder: ModelSource,
    max_examples: int,
    task: Classification,
) -> EncodedExamples:
    """Examples of ``source_task`` that are not in the evaluation sample of ``task``."""
    split_task = source_task.model_copy(update={"split": split, "samples": max_examples})
    shared = source_task.data == task.data and (is_local(task.data) or task.split == split)
    examples = load_examples(split_task, skip=task.samples if shared else 0)
    if len(examples.inputs) < 2:
        raise PlainError(
            f"{examples.name} has {len(examples.inputs) or 'no'} labeled examples to train on "
            "besides those used for evaluation; lower "
            f"{option_name(task, 'samples')}, or give data with a train split."
        )
    return EncodedExamples(
        encoded_inputs(source_task, examples, folder), class_targets(examples, config_of(folder))
    )


def check_several_classes(train: EncodedExamples, folder: ModelSource) -> None:
    if len(classes := train.targets.unique()) == 1:
        name = config_of(folder).id2label.get(classes.item(), classes.item())
        raise PlainError(
            f"All {len(train):,} examples to learn from are of one class, {name}, so there "
            "is nothing to tell apart; give data with others."
        )


def with_unlabeled_examples(
    train: EncodedExamples,
    task: Classification,
    data: Training,
    folder: ModelSource,
    max_examples: int,
) -> EncodedExamples:
    """The examples, and unlabeled ones that only a teacher labels."""
    if not data.unlabelled:
        return train
    found = unlabeled_inputs(task, data)[:max_examples]
    more = encoded_inputs(task, Examples(found, [], (), data.unlabelled, ""), folder)
    padding = {"input_ids": getattr(config_of(folder), "pad_token_id", None) or 0}
    inputs = {
        name: concatenate_padded(train.inputs[name], more[name], padding.get(name, 0))
        for name in train.inputs
    }
    return EncodedExamples(
        inputs, torch.cat([train.targets, torch.full((len(found),), IGNORE_INDEX)])
    )


def unlabeled_inputs(
    task: Classification, data: Training
) -> list[str] | list[tuple[str, str]] | list[Image.Image]:
    if isinstance(task, ImageClassification):
        return training_images(data.unlabelled, task.image_column)
    if task.text_pair_column:
        table = load_table(data.unlabelled, "unlabelled")
        return texts_in(
            table, data.text_column or task.text_column, task.text_pair_column, range(len(table))
        )
    return load_text(data.unlabelled, data.text_column or task.text_column, "unlabelled").texts


def concatenate_padded(one: torch.Tensor, other: torch.Tensor, padding: int) -> torch.Tensor:
    """Texts padded to one length, images unchanged. (examples, tokens) or (examples, channels,
    height, width)
    """
    if one.ndim > 2:
        return torch.cat([one, other])
    longest = max(one.shape[1], other.shape[1])
    return torch.cat(
        [pad(part, (0, longest - part.shape[1]), value=padding) for part in (one, other)]
    )


@singledispatch
def encoded_inputs(
    task: Classification, examples: Examples, folder: ModelSource
) -> dict[str, torch.Tensor]:
    """Inputs of the model."""
    raise TypeError(f"{type(task).__name__} is not prepared")


@encoded_inputs.register
def encoded_inputs_image_classification(
    task: ImageClassification, examples: Examples, folder: ModelSource
) -> dict[str, torch.Tensor]:
    batches = image_batches(
        examples.inputs, image_processor_of(folder), image_channels(config_of(folder)), 256
    )
    return {"pixel_values": torch.cat([inputs["pixel_values"] for _, inputs in batches])}


@encoded_inputs.register
def encoded_inputs_text_classification(
    task: TextClassification, examples: Examples, folder: ModelSource
) -> dict[str, torch.Tensor]:
    """Inputs padded on the right, with an attention mask."""
    tokenizer, config = tokenizer_of(folder), config_of(folder)
    length = checked_length(task.length, config, tokenizer)
    encoded = encoded_texts(examples.inputs, tokenizer, length)
    rows = {
        name: [torch.tensor(row, dtype=torch.int64) for row in values]
        for name, values in encoded.items()
    }
    padded = {name: pad_sequence(sequences, batch_first=True) for name, sequences in rows.items()}
    padded["input_ids"] = pad_sequence(
        rows["input_ids"], batch_first=True, padding_value=config.pad_token_id or 0
    )
    return padded | {
        "attention_mask": pad_sequence(
            [torch.ones_like(row) for row in rows["input_ids"]], batch_first=True
        )
    }
