"""Inputs of timed models and layers, taken from a pass of the evaluation batch."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from engine.calibration.stream import active_hooks
from engine.models.loaded_model import LoadedModel
from engine.models.routed_layers import routed_layers
from engine.recipe.tasks import Task

Inputs = dict[str, Any]  # inputs of a model by name; tensors have one row per example


@contextmanager
def largest_inputs(model: nn.Module) -> Iterator[Inputs]:
    """Record the largest batch that passes through the model inside the context."""
    largest: Inputs = {}

    def keep_largest(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not largest or main(kwargs).numel() > main(largest).numel():
            largest.update(kwargs)

    with active_hooks([model.register_forward_pre_hook(keep_largest, with_kwargs=True)]):
        yield largest


def main(inputs: Inputs) -> torch.Tensor:
    """Tokens (batch, tokens) or images (batch, channels, height, width)."""
    return inputs["input_ids"] if "input_ids" in inputs else inputs["pixel_values"]


@dataclass(frozen=True)
class Shape:
    """The first examples of the evaluation batch, or the first token alone."""

    examples: int
    words: str
    first_token: bool = False

    def select(self, tensor: torch.Tensor) -> torch.Tensor:
        selected = tensor[: self.examples]
        return selected[:, :1] if self.first_token else selected

    def select_inputs(self, inputs: Inputs) -> Inputs:
        return {
            name: self.select(value) if isinstance(value, torch.Tensor) else value
            for name, value in inputs.items()
        }


def input_shapes(inputs: Inputs, task: Task) -> list[Shape]:
    """Input shapes to time: one example, the evaluation batch and, for language models, one token
    as in generation.
    """
    batch = main(inputs)
    if batch.ndim == 4:
        return [
            Shape(count, f"{count} image{'s' * (count > 1)}") for count in sorted({1, len(batch)})
        ]
    first = [Shape(1, "1 token", first_token=True)] if task.kind == "language-modeling" else []
    return [
        *first,
        *(Shape(count, f"{count} x {batch.shape[1]} tokens") for count in sorted({1, len(batch)})),
    ]


def reached_layers(model: nn.Module, names: Iterable[str], inputs: Inputs) -> set[str]:
    """Layers that run in a pass of the evaluation batch: all except experts without tokens."""
    found: set[str] = set()
    with active_hooks(
        [
            model.get_submodule(name).register_forward_pre_hook(
                lambda module, args, name=name: found.add(name)
            )
            for name in names
        ]
    ):
        model(**inputs)
    return found


def layer_batch_inputs(
    compressed: LoadedModel, names: list[str], inputs: Inputs
) -> dict[str, torch.Tensor]:
    """Inputs of these layers in one pass of the evaluation batch, with flattened tokens reshaped to
    examples.
    """
    received: dict[str, torch.Tensor] = {}
    routed, examples = routed_layers(compressed.model, names), len(main(inputs))

    def recording_hook(name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            rows = 1 if name in routed else examples
            flat = args[0].ndim == 2 and len(args[0]) % rows == 0
            received[name] = args[0].unflatten(0, (rows, -1)) if flat else args[0]

        return hook

    with active_hooks(
        [
            compressed.model.get_submodule(name).register_forward_pre_hook(recording_hook(name))
            for name in names
        ]
    ):
        compressed.model(**inputs)
    return received
