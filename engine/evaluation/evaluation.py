"""Entry points of this package: evaluate a model on a task, and load its calibration data."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from engine.errors import PlainError
from engine.evaluation.calibration_batches import CalibrationData, calibration_data_for
from engine.evaluation.classification import image_quality, text_quality
from engine.evaluation.masked import masked_quality
from engine.evaluation.measured import EvaluationResult
from engine.evaluation.perplexity import perplexity
from engine.evaluation.progress import cancellable_report, ignore_progress, never_cancelled
from engine.events import Report
from engine.models.loading import ModelSource, config_of, image_processor_of, tokenizer_of
from engine.recipe.tasks import (
    Calibration,
    ImageClassification,
    LanguageModeling,
    MaskedLanguageModeling,
    Task,
    TextClassification,
)

CancelCheck = Callable[[], bool]
Device = torch.device | str


# task -> its evaluation function, and the loader of its tokenizer or image processor
MEASUREMENTS: dict[type[Task], tuple[Callable[..., EvaluationResult], Callable[..., Any]]] = {
    LanguageModeling: (perplexity, tokenizer_of),
    MaskedLanguageModeling: (masked_quality, tokenizer_of),
    TextClassification: (text_quality, tokenizer_of),
    ImageClassification: (image_quality, image_processor_of),
}


def evaluate(
    task: Task,
    model: nn.Module,
    folder: ModelSource,
    device: Device = "cpu",
    report: Report = ignore_progress,
    cancelled: CancelCheck = never_cancelled,
) -> EvaluationResult:
    """Quality of a model on a task. The model is on ``device`` already; ``folder`` has its
    tokenizer or image processor.

    Raises PlainError if task, data and model do not match, and Cancelled if the user stops the run.
    """
    measure, preprocessor_of = MEASUREMENTS[type(task)]
    report = cancellable_report(report, cancelled)
    return measure(task, model, preprocessor_of(folder), device, report)


def check_task_kind(task: Task, folder: ModelSource) -> None:
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
    folder: ModelSource,
    report: Report = ignore_progress,
    cancelled: CancelCheck = never_cancelled,
) -> list[dict[str, torch.Tensor]]:
    """Model inputs on the CPU, a few rows each: ``input_ids`` (and ``attention_mask``) or
    ``pixel_values``. They are from a classifier's own data unless the recipe names other data that
    is not bundled. Nothing is padded, and evaluation data is excluded.

    Raises PlainError if that is not possible.
    """
    return calibration_data(calibration, task, folder, report, cancelled).batches


def calibration_data(
    calibration: Calibration,
    task: Task,
    folder: ModelSource,
    report: Report = ignore_progress,
    cancelled: CancelCheck = never_cancelled,
) -> CalibrationData:
    """Calibration batches, with notes on assumptions and shortfalls."""
    check_task_kind(task, folder)
    reader = (
        image_processor_of(folder)
        if isinstance(task, ImageClassification)
        else tokenizer_of(folder)
    )
    return calibration_data_for(
        task, calibration, reader, config_of(folder), cancellable_report(report, cancelled)
    )
