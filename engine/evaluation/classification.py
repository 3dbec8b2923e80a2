"""Accuracy, macro precision, recall and F1 of classifiers of texts and of images."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn.functional import cross_entropy

from engine.errors import PlainError, option_name
from engine.evaluation.data.examples import Examples, load_examples
from engine.evaluation.data.tokens import chunks, token_batches
from engine.evaluation.measured import (
    EvaluationResult,
    dtype_name,
    evaluation_mode,
    finite_loss,
    inputs_on_device,
)
from engine.events import ProgressEvent, Report
from engine.models.positions import usable_length
from engine.recipe.tasks import Classification, ImageClassification, TextClassification
from engine.results.schema.record import Protocol

TEXTS, IMAGES = 32, 64  # examples per batch
UNNAMED = re.compile(r"LABEL_\d+")  # transformers' name for an unnamed class

# indices of examples, and their model inputs
Batches = Iterator[tuple[list[int], dict[str, torch.Tensor]]]


def text_quality(
    task: TextClassification,
    model: nn.Module,
    tokenizer: Any,
    device: torch.device | str,
    on_progress: Report,
) -> EvaluationResult:
    """Measure a text classifier on the examples of the task.

    Raises PlainError if data and model do not match.
    """
    length = checked_length(task.length, model.config, tokenizer)
    examples = load_examples(task, on_progress)
    targets = class_targets(examples, model.config)
    # GPT-like classifiers need one to read more than one text
    batch_size = TEXTS if getattr(model.config, "pad_token_id", None) is not None else 1
    batches = token_batches(examples.inputs, tokenizer, length, batch_size)
    read = (
        f"{'pairs of texts' if task.text_pair_column else 'texts'} cut at {length} tokens, "
        "special tokens included"
    )
    return classification_result(
        task,
        examples,
        targets,
        example_logits(model, batches, len(targets), device, on_progress),
        read,
    )


def image_quality(
    task: ImageClassification,
    model: nn.Module,
    processor: Any,
    device: torch.device | str,
    on_progress: Report,
) -> EvaluationResult:
    """Measure an image classifier on the task's examples.

    Raises PlainError if data and model do not match.
    """
    examples = load_examples(task, on_progress)
    targets = class_targets(examples, model.config)
    batches = image_batches(examples.inputs, processor, image_channels(model.config), IMAGES)
    read = "images prepared by the model's own processor"
    return classification_result(
        task,
        examples,
        targets,
        example_logits(model, batches, len(targets), device, on_progress),
        read,
    )


def example_logits(
    model: nn.Module, batches: Batches, count: int, device: torch.device | str, on_progress: Report
) -> torch.Tensor:
    """Logits of every example in the data's order.  (examples, classes)"""
    rows: dict[int, torch.Tensor] = {}
    with evaluation_mode(model):
        for indices, inputs in batches:
            on_progress(ProgressEvent("measuring-accuracy", len(rows), count))
            logits = model(**inputs_on_device(inputs, model, device)).logits
            rows |= dict(zip(indices, logits.cpu(), strict=True))
    on_progress(ProgressEvent("measuring-accuracy", count, count))
    return torch.stack([rows[index] for index in range(count)])


def classification_result(
    task: Classification,
    examples: Examples,
    targets: torch.Tensor,
    logits: torch.Tensor,
    input_description: str,
) -> EvaluationResult:
    loss = finite_loss(cross_entropy(logits.float(), targets), "these examples")
    guesses = logits.argmax(1)
    accuracy = (guesses == targets).double().mean().item()
    scores = {"accuracy": accuracy, **macro_scores(targets.numpy(), guesses.numpy()), "loss": loss}
    protocol = Protocol(
        task=task.kind,
        data=examples.name,
        fingerprint=examples.fingerprint,
        samples=len(targets),
        compute_dtype=dtype_name(logits.dtype),
        measure=(
            "Accuracy, and the mean of every class's precision, recall and F1; "
            f"{input_description}."
        ),
    )
    return EvaluationResult(scores, protocol, guesses.numpy().astype(np.int32), examples.notes)


def macro_scores(labels: np.ndarray, guesses: np.ndarray) -> dict[str, float]:
    """Means over the classes that occur in either: right / guessed, right / true, and 2 right /
    (true + guessed); 0 where a class has none.
    """
    classes = int(max(labels.max(), guesses.max())) + 1
    right, true, guessed = (
        np.bincount(labels, minlength=classes)
        for labels in (labels[labels == guesses], labels, guesses)
    )
    occurs = true + guessed > 0
    shares = {
        "macro_precision": right / np.maximum(1, guessed),
        "macro_recall": right / np.maximum(1, true),
    }
    shares["macro_f1"] = 2 * right / np.maximum(1, true + guessed)
    return {name: float(share[occurs].mean()) for name, share in shares.items()}


# --- what fits the model --------------------------------------------------------------------------


def checked_length(length: int, config: Any, tokenizer: Any) -> int:
    """The requested text length. Raises PlainError if it exceeds what the model or its tokenizer
    allows.
    """
    limit = min(
        usable_length(config) or 10**9, getattr(tokenizer, "model_max_length", None) or 10**9
    )
    if length > limit:
        raise PlainError(
            f"Texts of {length:,} tokens are longer than the {limit:,} that this model "
            f"reads; set {option_name(TextClassification, 'length')} to at most "
            f"{limit:,}."
        )
    return length


def class_targets(examples: Examples, config: Any) -> torch.Tensor:
    """Class of every example in the model's numbering: by name if both data and model have names,
    otherwise by number. Raises PlainError if their classes differ.
    """
    check_single_label_head(config)
    number_by_name = {
        str(name).strip().lower(): int(number) for number, name in config.id2label.items()
    }
    named = not any(UNNAMED.fullmatch(str(name)) for name in config.id2label.values())
    if examples.names and (named or not examples.numbered):
        return targets_by_name(examples, number_by_name, named)
    return targets_by_number(examples, len(number_by_name))


def check_single_label_head(config: Any) -> None:
    """Check that the model is a single-label classifier.

    Raises PlainError for regression and multi-label heads, for which accuracy is undefined.
    """
    kind = getattr(config, "problem_type", None)
    if len(config.id2label) < 2 or kind == "regression":
        outputs = "one number" if len(config.id2label) < 2 else f"{len(config.id2label)} numbers"
        raise PlainError(
            f"The model gives {outputs}, not classes (a regression head), so accuracy is "
            "undefined; choose a classifier with at least two labels."
        )
    if kind == "multi_label_classification":
        raise PlainError(
            "The model gives several labels to one example (problem_type "
            "multi_label_classification), which cannot be measured here; choose a "
            "classifier whose examples have one label each."
        )


def targets_by_name(
    examples: Examples, number_by_name: dict[str, int], named: bool
) -> torch.Tensor:
    unknown = [
        name for name in used_class_names(examples) if name.strip().lower() not in number_by_name
    ]
    if unknown:
        model_classes = (
            shortened_list(number_by_name)
            if named
            else f"unnamed ones, 0 to {len(number_by_name) - 1}"
        )
        raise PlainError(
            f"The labels of {examples.name} include {shortened_list(unknown)}, which the model "
            f"does not have; its labels are {model_classes}. Rename the labels in the data or "
            "choose a model for them."
        )
    return torch.tensor(
        [number_by_name[examples.names[label].strip().lower()] for label in examples.labels]
    )


def used_class_names(examples: Examples) -> list[str]:
    """Names of the classes that occur. Raises PlainError for a label beyond the names."""
    if max(examples.labels) >= len(examples.names):
        raise PlainError(
            f"{examples.name} has a label {max(examples.labels)} but names only "
            f"{len(examples.names)} classes; correct the data."
        )
    return [examples.names[label] for label in sorted(set(examples.labels))]


def targets_by_number(examples: Examples, classes: int) -> torch.Tensor:
    if (largest := max(examples.labels)) >= classes:
        raise PlainError(
            f"{examples.name} has labels up to {largest} but the model knows {classes} "
            f"classes, 0 to {classes - 1}; choose data or a model that fits."
        )
    return torch.tensor(examples.labels)


def shortened_list(names: Any, max_names: int = 10) -> str:
    shown = [str(name)[:40] for name in names]
    return ", ".join(shown[:max_names]) + (
        f" and {len(shown) - max_names} more" if len(shown) > max_names else ""
    )


# --- images ---------------------------------------------------------------------------------------


def image_channels(config: Any) -> int:
    return getattr(config, "num_channels", None) or 3


def image_batches(
    images: list[Image.Image], processor: Any, channels: int, batch_size: int
) -> Batches:
    """Batches prepared by the model's image processor, in gray for one channel and in color for
    three.
    """
    mode = "L" if channels == 1 else "RGB"
    for indices in chunks(list(range(len(images))), batch_size):
        batch = [images[index].convert(mode) for index in indices]
        try:
            prepared = processor(batch, return_tensors="pt")
        except Exception as error:  # a preprocessor_config.json may request anything
            raise PlainError(
                f"The model's image processor fails ({str(error)[:120]}); correct "
                "preprocessor_config.json or choose another model."
            ) from None
        yield indices, {"pixel_values": prepared["pixel_values"]}
