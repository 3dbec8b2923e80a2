"""LoRA (Hu et al. 2021, arXiv:2106.09685) on a model as an earlier step has stored it, and
QLoRA: the same over NF4 in one step.

The adapters are peft's own layers. They stand around plain float32 layers, unpacked for training:
peft's wrappers for quantized layers know bitsandbytes' modules, and none of the other forms that
weights are stored in here.
"""

import re
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.utils import parametrize
from transformers.pytorch_utils import Conv1D

from engine.errors import PlainError, option_name
from engine.models.layers import Layer
from engine.models.loaded_model import device_and_dtype
from engine.step.layer_swap import LayerSwap
from engine.step.pruning_plan import TechniqueInput
from engine.step.run_context import RunContext
from engine.step.trained_weights import TrainedWeights
from engine.techniques.composed import compress_further
from engine.techniques.hooks import (
    compress,
    meta_tensor,
    plan,
    storage_plan,
    train_weights,
    with_adapter,
)
from engine.techniques.low_rank.svd.method import low_rank_weight, rank_too_large_message
from engine.techniques.training.adapters.config import Adapters, LoRA, QLoRA
from engine.techniques.training.finetuner import finetune
from engine.techniques.training.straight_through import quantize_module_inputs
from engine.tensors.low_rank import AdaptedWeight, LowRankWeight
from engine.tensors.sparse import CSR, Bitmask, NOfM, sparse_storage_plan, sparse_weight
from engine.tensors.weights import DenseWeight, StoredWeight
from engine.training import TrainableModel, make_trainable
from engine.training.trainable_model import as_module_weight, matrix_view

ADAPTER_NAME = "adapter"  # name in peft
ATTENTION = re.compile(r"attn|attention")


class LayerLoRA(LoRA):
    """Setting of one layer. Rank 0: no adapter."""

    own: str = "float32"  # dtype of its weights in the file
    rank: int = 8
    alpha: float = 16.0


class LayerQLoRA(QLoRA):
    own: str = "float32"
    rank: int = 8
    alpha: float = 16.0


@plan.register
def plan_adapters(
    config: Adapters, layers: list[Layer], layer_swap: LayerSwap | None = None
) -> dict[str, Adapters]:
    adapted = [layer for layer in layers if has_adapter(config, layer)]
    if len(layers) > 1 and not adapted:
        raise PlainError(
            f"No layer of this model is named as {config.where} (they are named like "
            f"{layers[0].name!r}); set {option_name(config, 'where')} to all."
        )
    largest = max(adapted or layers, key=lambda layer: min(layer.matrix_shape))
    if config.rank > (full := min(largest.matrix_shape)):
        raise PlainError(rank_too_large_message(config.rank, full, largest.name))
    return {layer.name: layer_config(config, layer) for layer in layers}


def layer_config(config: Adapters, layer: Layer) -> Adapters:
    kind = LayerLoRA if isinstance(config, LoRA) else LayerQLoRA
    rank = min(config.rank, *layer.matrix_shape) if has_adapter(config, layer) else 0
    return kind(
        **config.model_dump()
        | {"own": layer.dtype, "rank": rank, "alpha": config.alpha * rank / config.rank}
    )


def has_adapter(config: Adapters, layer: Layer) -> bool:
    attention = bool(ATTENTION.search(layer.name))
    inside = config.where == "all" or (
        attention if config.where == "attention" else bool(layer.block) and not attention
    )
    return inside and layer.kind in config.layer_kinds and layer.groups == 1


def adapter_dtype(config: Adapters) -> torch.dtype:
    own = getattr(config, "own", "float32")
    return getattr(torch, own if config.adapters == "model" else config.adapters)


# --- what is stored -------------------------------------------------------------------------------


@with_adapter.register
def with_adapter_lora(config: LoRA, stored: StoredWeight) -> StoredWeight:
    """Untrained state: an adapter of zeros, or nothing to merge."""
    if not config.rank:
        return stored
    return (
        weight_before_merging(config, stored)
        if config.merge
        else adapted_weight(stored, zero_adapter(config, stored))
    )


def weight_before_merging(config: LoRA, stored: StoredWeight) -> StoredWeight:
    own = getattr(torch, getattr(config, "own", "float32"))
    device = next(iter(stored.tensors().values())).device
    if config.keep_zeros and isinstance(stored, Bitmask | CSR | NOfM):
        return (
            sparse_storage_plan(stored.shape, stored.values.numel(), own, "smallest")
            if device.type == "meta"
            else stored
        )
    return DenseWeight(
        stored.shape,
        meta_tensor(*stored.shape, dtype=own) if device.type == "meta" else stored.to_dense(own),
    )


def zero_adapter(config: Adapters, stored: StoredWeight) -> LowRankWeight:
    (out, in_), device = stored.shape, next(iter(stored.tensors().values())).device
    return low_rank_weight(
        torch.zeros(out, config.rank, device=device),
        torch.zeros(config.rank, in_, device=device),
        adapter_dtype(config),
    )


def adapted_weight(base: StoredWeight, correction: LowRankWeight) -> AdaptedWeight:
    return AdaptedWeight(base.shape, base, correction)


@compress.register
def compress_lora(config: LoRA, weight: torch.Tensor, stats: None = None) -> StoredWeight:
    """What-if on one layer: its state when training starts."""
    return with_adapter(config, DenseWeight(tuple(weight.shape), weight))


@compress.register
def compress_qlora(config: QLoRA, weight: torch.Tensor, stats: None = None) -> StoredWeight:
    base = compress(config.rounding(), weight)
    return adapted_weight(base, zero_adapter(config, base)) if config.rank else base


@storage_plan.register
def storage_plan_lora(config: LoRA, shape: tuple[int, int]) -> StoredWeight:
    own = getattr(torch, getattr(config, "own", "float32"))
    return with_adapter(config, DenseWeight(shape, meta_tensor(*shape, dtype=own)))


@storage_plan.register
def storage_plan_qlora(config: QLoRA, shape: tuple[int, int]) -> StoredWeight:
    base = storage_plan(config.rounding(), shape)
    return adapted_weight(base, zero_adapter(config, base)) if config.rank else base


# --- training -------------------------------------------------------------------------------------


@dataclass
class AdapterSite:
    """A layer with an adapter during training."""

    layer: Layer
    config: Adapters
    module: nn.Module  # the plain layer, whose weight is frozen
    lora: nn.Module  # peft's, around it
    # (out, in_) bool, where the adapter may change the weight; None: everywhere
    left: torch.Tensor | None = None

    @torch.no_grad()
    def factors(self) -> LowRankWeight:
        return low_rank_weight(*lora_factors(self.lora), adapter_dtype(self.config))

    @torch.no_grad()
    def merged_weight(self) -> StoredWeight:
        up, down = lora_factors(self.lora)
        added = up @ down if self.left is None else (up @ down).masked_fill(~self.left, 0)
        weight = (
            (matrix_view(self.module, frozen_weight(self.module)) + added)
            .to(getattr(torch, self.config.own))
            .contiguous()
        )
        return (
            DenseWeight(tuple(weight.shape), weight)
            if self.left is None
            else sparse_weight(weight, "smallest")
        )


class MaskedAdapter(nn.Module):
    """Parametrization that adds an adapter to the nonzero weights."""

    def __init__(self, lora: nn.Module, left: torch.Tensor, turned: bool):
        super().__init__()
        self.down, self.up, self.scaling, self.turned = (
            lora.lora_A[ADAPTER_NAME],
            lora.lora_B[ADAPTER_NAME],
            lora.scaling[ADAPTER_NAME],
            turned,
        )
        self.register_buffer("left", left)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        added = (
            (self.up.weight.flatten(1) @ self.down.weight.flatten(1)) * self.scaling
        ).masked_fill(~self.left, 0)
        return weight + (added.T if self.turned else added.view_as(weight))


@train_weights.register
def train_weights_adapters(
    config: Adapters, context: RunContext, technique_input: TechniqueInput
) -> TrainedWeights:
    layers = [
        layer for layer in technique_input.original.layers if layer.name in technique_input.targets
    ]
    settings = plan(config, layers)
    bases = {
        layer.name: base_weight(
            settings[layer.name],
            technique_input.original.model.get_submodule(layer.name).stored,
            context,
        )
        for layer in layers
    }
    trainable = make_trainable(
        context.folder, technique_input.original, layers, device_and_dtype(context.recipe)[0]
    )
    trainable.model.requires_grad_(False)
    load_base_weights(trainable, bases)
    sites = attach_adapters(trainable, settings, context)
    finetune(config, context, technique_input, trainable, "adapter")
    for name, site in sites.items():
        replace_module(trainable.model, name, site.module)
    merged = isinstance(config, LoRA) and config.merge
    done = {
        name: site.merged_weight() if merged else adapted_weight(bases[name], site.factors())
        for name, site in sites.items()
    }
    return TrainedWeights(
        {name: stored.to("cpu") for name, stored in (bases | done).items()}, trainable.plain()
    )


def attach_adapters(
    trainable: TrainableModel, settings: dict[str, Adapters], context: RunContext
) -> dict[str, AdapterSite]:
    """Attach adapters, initialized by the recipe's seed; none where the rank is 0."""
    keep_zeros = (
        context.keeps_zeros
        and isinstance(context.config, LoRA)
        and context.config.merge
        and context.config.keep_zeros
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(context.recipe.seed)
        sites = {
            layer.name: attach_adapter(trainable, layer, settings[layer.name], keep_zeros)
            for layer in trainable.layers
            if settings[layer.name].rank
        }
    quantize_inputs_as_stored(trainable)
    return sites


def base_weight(config: Adapters, stored: StoredWeight, context: RunContext) -> StoredWeight:
    """Base weight of an adapter: the stored layer, or the layer quantized now."""
    if isinstance(config, QLoRA):
        return compress_further(
            config.rounding(), stored, stored.to_dense(torch.float32), None, context.keeps_zeros
        )
    return stored


@torch.no_grad()
def load_base_weights(trainable: TrainableModel, bases: dict[str, StoredWeight]) -> None:
    """Set the weights to the stored ones, unpacked."""
    for name, base in bases.items():
        module = trainable.model.get_submodule(name)
        module.weight.copy_(as_module_weight(module, base.to_dense(torch.float32)))


def quantize_inputs_as_stored(trainable: TrainableModel) -> None:
    """Quantize inputs as an earlier step stored it, during training too; adapters get the same
    inputs.
    """
    for layer in (layer for layer in trainable.original.layers if layer.kind != "embedding"):
        stored, inputs = (
            trainable.original.model.get_submodule(layer.name).stored,
            torch.zeros(1, layer.matrix_shape[1], device=trainable.original.device),
        )
        if stored.quantized_inputs(inputs) is not inputs:
            quantize_module_inputs(
                trainable.model.get_submodule(layer.name), stored.quantized_inputs
            )


def attach_adapter(
    trainable: TrainableModel, layer: Layer, config: Adapters, keep_zeros: bool
) -> AdapterSite:
    """Attach a layer's adapter: around it, or as a parametrization of its weight if zeros stay
    zero.
    """
    module = trainable.model.get_submodule(layer.name)
    lora = lora_layer(module, config)
    if not keep_zeros:
        replace_module(trainable.model, layer.name, lora)
        return AdapterSite(layer, config, module, lora)
    left = matrix_view(module, module.weight.detach()) != 0
    parametrize.register_parametrization(
        module, "weight", MaskedAdapter(lora, left, isinstance(module, Conv1D))
    )
    return AdapterSite(layer, config, module, lora, left)


def lora_layer(module: nn.Module, config: Adapters) -> nn.Module:
    """peft's layer, whose second factor is initialized to zero."""
    from peft import LoraConfig
    from peft.tuners.lora.layer import Conv1d, Conv2d, Linear

    lora_config = LoraConfig(lora_dropout=config.dropout, fan_in_fan_out=isinstance(module, Conv1D))
    if not isinstance(module, nn.Conv1d | nn.Conv2d):
        if not isinstance(module, nn.Linear | Conv1D):  # peft reads the widths of unknown classes
            module.out_features, module.in_features = module.weight.shape
        return Linear(
            module, ADAPTER_NAME, config=lora_config, r=config.rank, lora_alpha=config.alpha
        )
    convolution = Conv1d if isinstance(module, nn.Conv1d) else Conv2d
    lora = convolution(
        module, ADAPTER_NAME, config=lora_config, r=config.rank, lora_alpha=config.alpha
    )
    # missing in peft
    for setting in ("dilation", "padding_mode", "_reversed_padding_repeated_twice"):
        setattr(lora.lora_A[ADAPTER_NAME], setting, getattr(module, setting))
    return lora


def lora_factors(lora: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """(out, rank), multiplied by alpha / rank, and (rank, in_)"""
    return lora.lora_B[ADAPTER_NAME].weight.flatten(1) * lora.scaling[ADAPTER_NAME], lora.lora_A[
        ADAPTER_NAME
    ].weight.flatten(1)


def frozen_weight(module: nn.Module) -> torch.Tensor:
    return (
        module.parametrizations.weight.original
        if parametrize.is_parametrized(module)
        else module.weight
    )


def replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
