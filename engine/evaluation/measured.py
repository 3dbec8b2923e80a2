"""Scores of a task for one model, and the model's state during evaluation."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from engine.errors import PlainError
from engine.results.schema.record import Protocol


@dataclass(frozen=True)
class EvaluationResult:
    # scores of the task, among perplexity, loss, accuracy, macro_precision, macro_recall, macro_f1
    scores: dict[str, float]
    protocol: Protocol
    guesses: np.ndarray  # int32, the arg-max for every target token or example, in the data's order
    notes: tuple[str, ...] = ()  # assumptions about the data, one sentence each


@contextmanager
def evaluation_mode(model: nn.Module, inference: bool = True) -> Iterator[None]:
    """Disable gradients and dropout, and restore the model's mode afterwards.

    Tensors computed in ``inference`` mode cannot be used in training.
    """
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode() if inference else torch.no_grad():
            yield
    finally:
        model.train(was_training)


def finite_loss(loss: torch.Tensor, where: str) -> float:
    """The summed loss as a number. Raises PlainError if it is not finite."""
    value = loss.item()
    if not math.isfinite(value):
        description = "not numbers (NaN)" if math.isnan(value) else "infinitely wrong"
        raise PlainError(
            f"The model's predictions are {description} on {where}; its weights are damaged or "
            "compressed too much: use more bits or skip layers."
        )
    return value


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def inputs_on_device(
    inputs: dict[str, torch.Tensor], model: nn.Module, device: torch.device | str
) -> dict[str, torch.Tensor]:
    """Inputs that the model accepts, on its device; floating-point inputs are cast to its dtype."""
    dtype = next((parameter.dtype for parameter in model.parameters()), None)
    if (
        "token_type_ids" in inputs
        and getattr(getattr(model, "config", None), "type_vocab_size", 0) < 2
    ):
        # a DistilBERT
        inputs = {name: value for name, value in inputs.items() if name != "token_type_ids"}
    return {
        name: value.to(device, dtype if value.is_floating_point() else None)
        for name, value in inputs.items()
    }
