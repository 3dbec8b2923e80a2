"""The front of this folder: a task and a model's folder in, numbers or calibration inputs out."""

from collections.abc import Callable
from functools import singledispatch

import torch
from torch import nn

from engine.errors import PlainError
from engine.evaluation.calibration_batches import CalibrationData, data_for
from engine.evaluation.classification import image_quality, text_quality
from engine.evaluation.masked import masked_quality
from engine.evaluation.measured import Measured
from engine.evaluation.perplexity import perplexity
from engine.evaluation.progress import never, silent, watched
from engine.events import Report
from engine.models.loading import Folder, config_of, image_processor_of, tokenizer_of
from engine.recipe.tasks import (
    Calibration,
    ImageClassification,
    LanguageModeling,
    MaskedLanguageModeling,
    Task,
    TextClassification,
)

Cancelled = Callable[[], bool]
Device = torch.device | str


@singledispatch
def evaluate(
    task: Task,
    model: nn.Module,
    folder: Folder,
    device: Device = "cpu",
    report: Report = silent,
    cancelled: Cancelled = never,
) -> Measured:
    """The model's quality at a task. The model is on ``device`` already; ``folder`` has its
    tokenizer or image processor.

    Raises PlainError where task, data and model do not fit each other, Cancelled when asked to
    stop.
    """
    raise TypeError(f"{type(task).__name__} cannot be evaluated")


@evaluate.register
def evaluate_language_modeling(
    task: LanguageModeling,
    model: nn.Module,
    folder: Folder,
    device: Device = "cpu",
    report: Report = silent,
    cancelled: Cancelled = never,
) -> Measured:
    return perplexity(task, model, tokenizer_of(folder), device, watched(report, cancelled))


@evaluate.register
def evaluate_masked_language_modeling(
    task: MaskedLanguageModeling,
    model: nn.Module,
    folder: Folder,
    device: Device = "cpu",
    report: Report = silent,
    cancelled: Cancelled = never,
) -> Measured:
    return masked_quality(task, model, tokenizer_of(folder), device, watched(report, cancelled))


@evaluate.register
def evaluate_text_classification(
    task: TextClassification,
    model: nn.Module,
    folder: Folder,
    device: Device = "cpu",
    report: Report = silent,
    cancelled: Cancelled = never,
) -> Measured:
    return text_quality(task, model, tokenizer_of(folder), device, watched(report, cancelled))


@evaluate.register
def evaluate_image_classification(
    task: ImageClassification,
    model: nn.Module,
    folder: Folder,
    device: Device = "cpu",
    report: Report = silent,
    cancelled: Cancelled = never,
) -> Measured:
    return image_quality(
        task, model, image_processor_of(folder), device, watched(report, cancelled)
    )


def refuse_other_kind(task: Task, folder: Folder) -> None:
    """Check that the model's kind matches the task.

    Raises PlainError otherwise.
    """
    if folder.kind != task.kind:
        raise PlainError(
            f"{folder} is a {folder.kind} model ({folder.architecture}), but the task is "
            f"{task.kind}; set task.kind to {folder.kind}."
        )


def calibration_batches(
    calibration: Calibration,
    task: Task,
    folder: Folder,
    report: Report = silent,
    cancelled: Cancelled = never,
) -> list[dict[str, torch.Tensor]]:
    """Model inputs on the CPU, a few rows each: ``input_ids`` (and ``attention_mask``) or
    ``pixel_values``.

    Of a classifier's own data unless the recipe names other, non-bundled, data. Nothing is padded,
    and nothing in them is what
    quality is measured on. Raises PlainError where that cannot be had.
    """
    return calibration_data(calibration, task, folder, report, cancelled).batches


def calibration_data(
    calibration: Calibration,
    task: Task,
    folder: Folder,
    report: Report = silent,
    cancelled: Cancelled = never,
) -> CalibrationData:
    """Calibration batches, with notes on assumptions and shortfalls."""
    refuse_other_kind(task, folder)
    reader = (
        image_processor_of(folder)
        if isinstance(task, ImageClassification)
        else tokenizer_of(folder)
    )
    return data_for(task, calibration, reader, config_of(folder), watched(report, cancelled))
