"""Quantization-aware training: weights learn on the grid, or at the three values, that they will be
stored in.
"""

import torch

from engine.errors import PlainError, option_name
from engine.models.layers import Layer
from engine.models.loaded_model import device_and_dtype
from engine.models.loading import untrained_model
from engine.step.layer_swap import LayerSwap
from engine.step.pruning_plan import TechniqueInput
from engine.step.run_context import RunContext
from engine.step.trained_weights import TrainedWeights
from engine.techniques.hooks import compress, meta_tensor, plan, storage_plan, train_weights
from engine.techniques.quantization.fixed_levels.config import Ternary
from engine.techniques.quantization.grid import round_to_grid
from engine.techniques.quantization.rounding.config import RoundToNearest
from engine.techniques.training.finetuner import finetune
from engine.techniques.training.qat.config import QAT, BitNet
from engine.techniques.training.qat.fake_quant import (
    FakeQuant,
    Range,
    attach_fake_quant,
    fixed_range,
    has_static_range,
    with_quantized_inputs,
)
from engine.tensors.sparse_codes import remaining_mask
from engine.tensors.weights import StoredWeight
from engine.training import TrainableModel, make_trainable
from engine.training.trainable_model import matrix_view

# a look at one layer, and a forecast: rounded without training, which moves codes and leaves the
# bytes as they are


@compress.register
def compress_qat(config: QAT, weight: torch.Tensor, stats: None = None) -> StoredWeight:
    return with_quantized_inputs(config, round_to_grid(weight, config))


@compress.register
def compress_bitnet(config: BitNet, weight: torch.Tensor, stats: None = None) -> StoredWeight:
    return with_quantized_inputs(config, compress.dispatch(Ternary)(config, weight))


@storage_plan.register
def storage_plan_qat(config: QAT, shape: tuple[int, int]) -> StoredWeight:
    return with_quantized_inputs(
        config, storage_plan.dispatch(RoundToNearest)(config, shape), planned_range(config)
    )


@storage_plan.register
def storage_plan_bitnet(config: BitNet, shape: tuple[int, int]) -> StoredWeight:
    return with_quantized_inputs(
        config, storage_plan.dispatch(Ternary)(config, shape), planned_range(config)
    )


def planned_range(config: QAT | BitNet) -> Range | None:
    return {"scale": meta_tensor(1), "zero": meta_tensor(1)} if has_static_range(config) else None


@plan.register(QAT)
@plan.register(BitNet)
def plan_qat_or_bitnet(
    config: QAT | BitNet, layers: list[Layer], layer_swap: LayerSwap | None = None
) -> dict[str, QAT | BitNet]:
    """Use ranges found during training for layers whose inputs cannot be observed."""
    unseen = config.model_copy(update={"activation_range": "dynamic"})
    return {
        layer.name: unseen if layer.kind == "embedding" or layer.groups > 1 else config
        for layer in layers
    }


@train_weights.register(QAT)
@train_weights.register(BitNet)
def train_weights_qat_or_bitnet(
    config: QAT | BitNet, context: RunContext, technique_input: TechniqueInput
) -> TrainedWeights:
    layers = [
        layer for layer in technique_input.original.layers if layer.name in technique_input.targets
    ]
    check_unrounded_inputs(technique_input, layers)
    trainable = make_trainable(
        context.folder, technique_input.original, layers, device_and_dtype(context.recipe)[0]
    )
    if isinstance(config, BitNet) and config.start == "random":
        randomize_weights(trainable, context)
    settings = plan(config, layers)
    left = (
        {
            layer.name: remaining_mask(
                technique_input.original.model.get_submodule(layer.name).stored
            )
            for layer in layers
        }
        if context.keeps_zeros
        else {}
    )
    fixed = input_ranges(config, settings, technique_input)
    rounded = {
        layer.name: attach_fake_quant(
            trainable, layer, settings[layer.name], left.get(layer.name), fixed.get(layer.name)
        )
        for layer in layers
    }
    pull = config.pull if isinstance(config, QAT) else 0.0
    finetune(
        config,
        context,
        technique_input,
        trainable,
        config.technique,
        (lambda: pull * mean_quantization_error(trainable, rounded)) if pull else None,
    )
    stored = {
        name: fake_quant.stored_weight(latent_weight(trainable, name)).to("cpu")
        for name, fake_quant in rounded.items()
    }
    return TrainedWeights(stored, trainable.plain())


def input_ranges(
    config: QAT | BitNet, settings: dict[str, QAT | BitNet], technique_input: TechniqueInput
) -> dict[str, Range]:
    """Ranges of the inputs of each layer, from calibration data in the unrounded model. Raises
    PlainError if no data reaches a layer.
    """
    names = [name for name, setting in settings.items() if has_static_range(setting)]
    stats = technique_input.layer_swap.input_stats(names) if names else {}
    if unreached := [name for name in names if name not in stats]:
        raise PlainError(
            f"{unreached[0]}: No calibration data reached it, so it can have no static range; "
            f"set {option_name(config, 'activation_range')} to dynamic."
        )
    return {name: fixed_range(config, stats) for name, stats in stats.items()}


def mean_quantization_error(
    trainable: TrainableModel, fake_quants: dict[str, FakeQuant]
) -> torch.Tensor:
    """Mean squared distance of the weights to their levels, in steps, over all layers."""
    return sum(
        fake_quant.quantization_error(latent_weight(trainable, name))
        for name, fake_quant in fake_quants.items()
    ) / len(fake_quants)


def latent_weight(trainable: TrainableModel, name: str) -> torch.Tensor:
    """The whole weight behind the rounded one, as the module holds it."""
    return trainable.model.get_submodule(name).parametrizations.weight.original


def check_unrounded_inputs(technique_input: TechniqueInput, layers: list[Layer]) -> None:
    for layer in layers:
        stored, inputs = (
            technique_input.original.model.get_submodule(layer.name).stored,
            torch.zeros(1, layer.matrix_shape[1]),
        )
        if stored.quantized_inputs(inputs) is not inputs:
            raise PlainError(
                f"{layer.name}: The step before rounds its inputs, and this one would not; "
                f"leave that step out and set {option_name(QAT, 'activation_bits')}."
            )


@torch.no_grad()
def randomize_weights(trainable: TrainableModel, context: RunContext) -> None:
    """The layers' weights as the architecture draws them, by the recipe's seed. Raises PlainError
    after a step that has changed shapes.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(context.recipe.seed)
        random_model = untrained_model(context.folder)
    for layer in trainable.layers:
        first, weight = (
            random_model.get_submodule(layer.name),
            trainable.model.get_submodule(layer.name),
        )
        if first.weight.shape != weight.weight.shape:
            raise PlainError(
                f"{layer.name} has another shape than in config.json, so it cannot start from "
                f"random weights; set {option_name(BitNet, 'start')} to checkpoint."
            )
        matrix_view(weight, weight.weight).copy_(matrix_view(first, first.weight))
