"""Traces of a model's computation between its layers, to find which outputs each input depends on.

Each layer is replaced by a stub that returns given numbers of the right shape. A trace needs no
matrix products and no weights, only norms, biases and other small tensors; layer inputs can only
depend on what other layers returned.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from engine.models.layers import Layer, is_depthwise, layers_of
from engine.models.loading import ModelSource, config_of, meta_model, set_fields
from engine.models.shapes import fit_shapes
from engine.step.pruning_plan import PruningPlan, TechniqueInput
from engine.tensors.weights import StoredWeight

CONVOLUTIONS = ("conv2d", "convolution1d")  # kinds of layers whose second axis is channels
TOKENS = 6  # tokens of the traced text
SIDE = 64  # pixels of the traced image, if the model does not define its size
# layers return numbers in this range, where no activation function is flat, as ReLU is below 0
LOW, HIGH = 0.2, 1.2
# (layer, number of the call, shape) -> output of the layer
Feed = Callable[[str, int, torch.Size], torch.Tensor]


@dataclass
class Trace:
    """Inputs and outputs of every executed layer, one entry per call, with channels last."""

    inputs: dict[str, list[torch.Tensor]] = field(default_factory=dict)
    outputs: dict[str, list[torch.Tensor]] = field(default_factory=dict)
    results: list[torch.Tensor] = field(default_factory=list)  # output of the model


def outline_model(
    folder: ModelSource,
    stored: dict[str, StoredWeight],
    plain: dict[str, torch.Tensor],
    config: Any = None,
) -> nn.Module:
    """Model with its small tensors in float32 and one repeated number in place of each weight."""
    model = fit_shapes(meta_model(folder, config), stored, plain)
    tensors = {
        name: value.float() if value.is_floating_point() else value for name, value in plain.items()
    }
    model.load_state_dict(
        {name: value.cpu() for name, value in tensors.items()}, strict=False, assign=True
    )
    for layer in layers_of(model):
        module = model.get_submodule(layer.name)
        module._parameters["weight"] = nn.Parameter(
            torch.full((), 0.01).expand(module.weight.shape), requires_grad=False
        )
    model.config.get_text_config().use_cache = False
    return (
        model.float() if any(value.dtype == torch.float64 for value in model.buffers()) else model
    )


def example_inputs(model: nn.Module) -> dict[str, torch.Tensor]:
    """Short text of one repeated token that is not padding, or an image."""
    if model.main_input_name == "pixel_values":
        return {"pixel_values": example_image(model)}
    text = model.config.get_text_config()
    token = next(
        token
        for token in range(3)
        if token not in (getattr(text, "pad_token_id", None), getattr(text, "eos_token_id", None))
    )
    ids = torch.full((1, TOKENS), token)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def example_image(model: nn.Module) -> torch.Tensor:
    size = getattr(model.config, "image_size", None) or SIDE
    height, width = (size, size) if isinstance(size, int) else size
    return torch.randn(
        1, model.config.num_channels, height, width, generator=torch.Generator().manual_seed(0)
    )


def trace_layers(model: nn.Module, feed: Feed, idle_blocks: frozenset[str] = frozenset()) -> Trace:
    """Run ``model``, an ``outline_model``, once on its example. Blocks in ``idle`` return their
    input. Replaces the layers of ``model``.
    """
    trace = Trace()
    for layer in layers_of(model):
        model.get_submodule(layer.name).forward = layer_stub(
            layer, model.get_submodule(layer.name), feed, trace
        )
    for name in idle_blocks:
        block = model.get_submodule(name)
        block.forward = identity_forward(block.forward)
    with sdpa_kernel(SDPBackend.MATH):  # other implementations cannot be differentiated twice
        returned = model(**example_inputs(model))
    trace.results = [value for value in returned.values() if isinstance(value, torch.Tensor)]
    return trace


def layer_stub(layer: Layer, module: nn.Module, feed: Feed, trace: Trace) -> Callable[..., Any]:
    channels_first = layer.kind in CONVOLUTIONS

    def forward(inputs: torch.Tensor, *_: Any) -> torch.Tensor:
        shape = output_shape(layer, module, inputs.shape)
        calls = trace.outputs.setdefault(layer.name, [])
        values = feed(
            layer.name,
            len(calls),
            torch.Size((shape[0], *shape[2:], shape[1])) if channels_first else shape,
        )
        calls.append(values)
        trace.inputs.setdefault(layer.name, []).append(
            inputs.movedim(1, -1) if channels_first else inputs
        )
        return (values.movedim(-1, 1) if channels_first else values).clone()

    return forward


def output_shape(layer: Layer, module: nn.Module, shape: torch.Size) -> torch.Size:
    if layer.kind in CONVOLUTIONS:
        return module._conv_forward(
            torch.empty(shape, device="meta"), torch.empty(layer.shape, device="meta"), None
        ).shape
    return (
        torch.Size((*shape, layer.shape[1]))
        if layer.kind == "embedding"
        else torch.Size((*shape[:-1], layer.shape[0]))
    )


def identity_forward(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Forward pass of a block that returns its input in the form of its output."""

    def idle(*args: Any, **kwargs: Any) -> Any:
        returned, states = forward(*args, **kwargs), args[0] if args else kwargs["hidden_states"]
        return (states, *returned[1:]) if isinstance(returned, tuple) else states

    return idle


def random_outputs() -> Feed:
    """Distinct numbers, the same in every run, that record gradients."""
    generator = torch.Generator().manual_seed(0)

    def feed(name: str, call: int, shape: torch.Size) -> torch.Tensor:
        return (
            torch.empty(shape)
            .uniform_(LOW, HIGH, generator=generator)
            .requires_grad_(torch.is_grad_enabled())
        )

    return feed


# --- whether a smaller model computes the same ----------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """First layer whose input in a smaller model differs from the original; without a layer or a
    failure it is the model's output.
    """

    layer: str = ""
    failure: str = ""  # error of computing the smaller model

    def __str__(self) -> str:
        """The layer or the error, short and on one line."""
        return " ".join((self.failure or self.layer or "what it returns").split())[:120]


def first_difference(technique_input: TechniqueInput, small: PruningPlan) -> Difference | None:
    """First difference between the smaller model and the original without those structures; None
    if they compute the same.

    Every layer of the smaller model returns the original's output without the removed rows, so
    every layer must read the original's input without the removed columns. ``subject`` must be
    ``with_shifted_tensors``, and ``small`` must be built from it.
    """
    with torch.no_grad():
        try:
            before = trace_layers(
                outline_of_original(technique_input),
                random_outputs(),
                frozenset(small.removed_blocks),
            )
            after = trace_layers(
                outline_of_pruned(technique_input, small), remaining_outputs(before, small)
            )
        except Exception as error:  # model code may raise any error for mismatched tensors
            return Difference(failure=f"{type(error).__name__}: {error}")
    for layer in technique_input.original.layers:
        if small.removes(layer.name):
            continue
        expected = [
            remaining_inputs(small, layer, inputs) for inputs in before.inputs.get(layer.name, [])
        ]
        found = after.inputs.get(small.name(layer.name), [])
        if len(found) != len(expected) or not all(map(tensors_match, expected, found)):
            return Difference(layer.name)
    return None if all(map(tensors_match, before.results, after.results)) else Difference()


def pruned_model_error(technique_input: TechniqueInput, pruning_plan: PruningPlan) -> str:
    """Error of building or running the smaller model, if the original has none; otherwise ""."""
    failures = []
    for make_outline in (
        lambda: outline_of_pruned(technique_input, pruning_plan),
        lambda: outline_of_original(technique_input),
    ):
        try:
            with torch.no_grad():
                trace_layers(make_outline(), random_outputs())
        # model code may raise any error for mismatched tensors or fields
        except Exception as error:
            failures.append(" ".join(f"{type(error).__name__}: {error}".split()))
        else:
            break
    return failures[0] if len(failures) == 1 else ""


def with_shifted_tensors(technique_input: TechniqueInput) -> TechniqueInput:
    """Model with randomly changed small tensors: a scale of 1 or a factor of 0, as before training,
    would hide dependencies.
    """
    generator, original = torch.Generator().manual_seed(0), technique_input.original
    plain = {
        name: value.cpu()
        + torch.empty(value.shape).uniform_(0.1, 0.6, generator=generator).to(value.dtype)
        if value.is_floating_point()
        else value
        for name, value in original.plain.items()
    }
    return replace(technique_input, original=replace(original, plain=plain))


def outline_of_original(technique_input: TechniqueInput) -> nn.Module:
    original = technique_input.original
    stored = {
        layer.name: original.model.get_submodule(layer.name).stored for layer in original.layers
    }
    return outline_model(technique_input.folder, stored, original.plain)


def outline_of_pruned(technique_input: TechniqueInput, pruning_plan: PruningPlan) -> nn.Module:
    original, pairs = (
        technique_input.original,
        list(pruning_plan.layers(technique_input.original.layers)),
    )
    stored = {
        after.name: pruning_plan.planned_weight(
            layer, original.model.get_submodule(layer.name).stored
        )
        for layer, after in pairs
    }
    config = config_of(technique_input.folder)
    set_fields(config, pruning_plan.config)
    return outline_model(technique_input.folder, stored, pruning_plan.plain(original.plain), config)


def remaining_outputs(before: Trace, pruning_plan: PruningPlan) -> Feed:
    """Outputs of the larger model's layers, without the removed rows."""
    names = {
        pruning_plan.name(name): name for name in before.outputs if not pruning_plan.removes(name)
    }

    def feed(name: str, call: int, shape: torch.Size) -> torch.Tensor:
        values, kept = before.outputs[names[name]][call], pruning_plan.kept_indices.get(names[name])
        return values if kept is None or kept.rows is None else values[..., kept.rows]

    return feed


def remaining_inputs(pruning_plan: PruningPlan, layer: Layer, inputs: torch.Tensor) -> torch.Tensor:
    """Input of a layer, without the removed channels."""
    kept = pruning_plan.kept_indices.get(layer.name)
    if kept is None or not inputs.is_floating_point():
        return inputs
    if is_depthwise(layer):
        return inputs if kept.rows is None else inputs[..., kept.rows]
    area = torch.Size(layer.shape[2:]).numel()
    return inputs if kept.columns is None else inputs[..., kept.columns[::area] // area]


def tensors_match(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(
        one, other, rtol=1e-4, atol=1e-5, equal_nan=True
    )
