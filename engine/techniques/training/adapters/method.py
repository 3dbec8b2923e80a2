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

from engine.errors import PlainError
from engine.models.layers import Layer
from engine.models.loaded_model import compute_place
from engine.step.layer_swap import Trial
from engine.step.pruning_plan import Subject
from engine.step.run_context import Bench
from engine.step.trained_weights import Trained
from engine.techniques.composed import compress_further
from engine.techniques.hooks import beside, blueprint, compress, plan, retrained, sketch
from engine.techniques.low_rank.svd.method import beyond_full, low_rank
from engine.techniques.training.adapters.config import Adapters, LoRA, QLoRA
from engine.techniques.training.fake_quant import round_inputs
from engine.techniques.training.finetuner import learn
from engine.tensors.low_rank import Adapted, LowRank
from engine.tensors.sparse import CSR, Bitmask, NOfM, sparse, sparse_blueprint
from engine.tensors.weights import Dense, Stored
from engine.training import Pupil, pupil_of
from engine.training.trainable_model import in_place, laid_flat

NAME = "adapter"  # as peft calls it
ATTENTION = re.compile(r"attn|attention")


class PlacedLoRA(LoRA):
    """One layer's own setting. Rank 0: it gets no adapter."""

    own: str = "float32"  # number format of its weights in the file
    rank: int = 8
    alpha: float = 16.0


class PlacedQLoRA(QLoRA):
    own: str = "float32"
    rank: int = 8
    alpha: float = 16.0


@plan.register
def plan_adapters(
    how: Adapters, layers: list[Layer], trial: Trial | None = None
) -> dict[str, Adapters]:
    places = [layer for layer in layers if has_adapter(how, layer)]
    if len(layers) > 1 and not places:
        raise PlainError(
            f"No layer of this model is named as {how.where} (they are named like "
            f"{layers[0].name!r}); set where to all."
        )
    largest = max(places or layers, key=lambda layer: min(layer.matrix_shape))
    if how.rank > (full := min(largest.matrix_shape)):
        raise PlainError(beyond_full(how.rank, full, largest.name))
    return {layer.name: placed(how, layer) for layer in layers}


def placed(how: Adapters, layer: Layer) -> Adapters:
    kind = PlacedLoRA if isinstance(how, LoRA) else PlacedQLoRA
    rank = min(how.rank, *layer.matrix_shape) if has_adapter(how, layer) else 0
    return kind(
        **how.model_dump()
        | {"own": layer.dtype, "rank": rank, "alpha": how.alpha * rank / how.rank}
    )


def has_adapter(how: Adapters, layer: Layer) -> bool:
    attention = bool(ATTENTION.search(layer.name))
    inside = how.where == "all" or (
        attention if how.where == "attention" else bool(layer.block) and not attention
    )
    return inside and layer.kind in how.treats and layer.groups == 1


def dtype_of(how: Adapters) -> torch.dtype:
    own = getattr(how, "own", "float32")
    return getattr(torch, own if how.adapters == "model" else how.adapters)


# --- what is stored -------------------------------------------------------------------------------


@beside.register
def beside_lora(how: LoRA, held: Stored) -> Stored:
    """Untrained state: an adapter of zeros, or nothing to merge."""
    if not how.rank:
        return held
    return unmerged(how, held) if how.merge else adapted(held, nothing_learnt(how, held))


def unmerged(how: LoRA, held: Stored) -> Stored:
    own = getattr(torch, getattr(how, "own", "float32"))
    device = next(iter(held.tensors().values())).device
    if how.keep_zeros and isinstance(held, Bitmask | CSR | NOfM):
        return (
            sparse_blueprint(held.shape, held.values.numel(), own, "smallest")
            if device.type == "meta"
            else held
        )
    return Dense(
        held.shape, sketch(*held.shape, dtype=own) if device.type == "meta" else held.dense(own)
    )


def nothing_learnt(how: Adapters, held: Stored) -> LowRank:
    (out, in_), device = held.shape, next(iter(held.tensors().values())).device
    return low_rank(
        torch.zeros(out, how.rank, device=device),
        torch.zeros(how.rank, in_, device=device),
        dtype_of(how),
    )


def adapted(base: Stored, correction: LowRank) -> Adapted:
    return Adapted(base.shape, base, correction)


@compress.register
def compress_lora(how: LoRA, weight: torch.Tensor, seen: None = None) -> Stored:
    """A look at one layer: as training begins."""
    return beside(how, Dense(tuple(weight.shape), weight))


@compress.register
def compress_qlora(how: QLoRA, weight: torch.Tensor, seen: None = None) -> Stored:
    base = compress(how.rounding(), weight)
    return adapted(base, nothing_learnt(how, base)) if how.rank else base


@blueprint.register
def blueprint_lora(how: LoRA, shape: tuple[int, int]) -> Stored:
    own = getattr(torch, getattr(how, "own", "float32"))
    return beside(how, Dense(shape, sketch(*shape, dtype=own)))


@blueprint.register
def blueprint_qlora(how: QLoRA, shape: tuple[int, int]) -> Stored:
    base = blueprint(how.rounding(), shape)
    return adapted(base, nothing_learnt(how, base)) if how.rank else base


# --- training -------------------------------------------------------------------------------------


@dataclass
class Site:
    """A layer that has an adapter while the model learns."""

    layer: Layer
    how: Adapters
    module: nn.Module  # the plain layer, whose weight rests
    lora: nn.Module  # peft's, around it
    # (out, in_) bool, where something may be added; None: everywhere
    left: torch.Tensor | None = None

    @torch.no_grad()
    def factors(self) -> LowRank:
        return low_rank(*factors_of(self.lora), dtype_of(self.how))

    @torch.no_grad()
    def merged(self) -> Stored:
        up, down = factors_of(self.lora)
        added = up @ down if self.left is None else (up @ down).masked_fill(~self.left, 0)
        weight = (
            (laid_flat(self.module, resting(self.module)) + added)
            .to(getattr(torch, self.how.own))
            .contiguous()
        )
        return (
            Dense(tuple(weight.shape), weight) if self.left is None else sparse(weight, "smallest")
        )


class Added(nn.Module):
    """Parametrization that adds an adapter to the nonzero weights."""

    def __init__(self, lora: nn.Module, left: torch.Tensor, turned: bool):
        super().__init__()
        self.down, self.up, self.scaling, self.turned = (
            lora.lora_A[NAME],
            lora.lora_B[NAME],
            lora.scaling[NAME],
            turned,
        )
        self.register_buffer("left", left)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        added = (
            (self.up.weight.flatten(1) @ self.down.weight.flatten(1)) * self.scaling
        ).masked_fill(~self.left, 0)
        return weight + (added.T if self.turned else added.view_as(weight))


@retrained.register
def retrained_adapters(how: Adapters, bench: Bench, subject: Subject) -> Trained:
    layers = [layer for layer in subject.original.layers if layer.name in subject.targets]
    settings = plan(how, layers)
    bases = {
        layer.name: base_of(
            settings[layer.name], subject.original.model.get_submodule(layer.name).stored, bench
        )
        for layer in layers
    }
    pupil = pupil_of(bench.folder, subject.original, layers, compute_place(bench.recipe)[0])
    pupil.model.requires_grad_(False)
    install_bases(pupil, bases)
    sites = equipped(pupil, settings, bench)
    learn(how, bench, subject, pupil, "adapter")
    for name, each in sites.items():
        put(pupil.model, name, each.module)
    merged = isinstance(how, LoRA) and how.merge
    done = {
        name: each.merged() if merged else adapted(bases[name], each.factors())
        for name, each in sites.items()
    }
    return Trained(
        {name: stored.to("cpu") for name, stored in (bases | done).items()}, pupil.plain()
    )


def equipped(pupil: Pupil, settings: dict[str, Adapters], bench: Bench) -> dict[str, Site]:
    """Adapters in their places, drawn by the recipe's seed; none where the rank is 0."""
    keep_zeros = (
        bench.keeps_zeros
        and isinstance(bench.how, LoRA)
        and bench.how.merge
        and bench.how.keep_zeros
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(bench.recipe.seed)
        sites = {
            layer.name: site(pupil, layer, settings[layer.name], keep_zeros)
            for layer in pupil.layers
            if settings[layer.name].rank
        }
    round_as_stored(pupil)
    return sites


def base_of(how: Adapters, held: Stored, bench: Bench) -> Stored:
    """Base weight of an adapter: the stored layer, or the layer quantized now."""
    if isinstance(how, QLoRA):
        return compress_further(
            how.rounding(), held, held.dense(torch.float32), None, bench.keeps_zeros
        )
    return held


@torch.no_grad()
def install_bases(pupil: Pupil, bases: dict[str, Stored]) -> None:
    """Weights as they are stored, unpacked."""
    for name, base in bases.items():
        module = pupil.model.get_submodule(name)
        module.weight.copy_(in_place(module, base.dense(torch.float32)))


def round_as_stored(pupil: Pupil) -> None:
    """Layers whose inputs an earlier step rounds do so while the model learns, too; their adapters
    get the same.
    """
    for layer in (each for each in pupil.original.layers if each.kind != "embedding"):
        stored, inputs = (
            pupil.original.model.get_submodule(layer.name).stored,
            torch.zeros(1, layer.matrix_shape[1], device=pupil.original.device),
        )
        if stored.received(inputs) is not inputs:
            round_inputs(pupil.model.get_submodule(layer.name), stored.received)


def site(pupil: Pupil, layer: Layer, how: Adapters, keep_zeros: bool) -> Site:
    """A layer's adapter in its place: around it, or on its weight where zeros stay zero."""
    module = pupil.model.get_submodule(layer.name)
    lora = lora_around(module, how)
    if not keep_zeros:
        put(pupil.model, layer.name, lora)
        return Site(layer, how, module, lora)
    left = laid_flat(module, module.weight.detach()) != 0
    parametrize.register_parametrization(
        module, "weight", Added(lora, left, isinstance(module, Conv1D))
    )
    return Site(layer, how, module, lora, left)


def lora_around(module: nn.Module, how: Adapters) -> nn.Module:
    """peft's layer, whose second factor is zero."""
    from peft import LoraConfig
    from peft.tuners.lora.layer import Conv1d, Conv2d, Linear

    lora_config = LoraConfig(lora_dropout=how.dropout, fan_in_fan_out=isinstance(module, Conv1D))
    if not isinstance(module, nn.Conv1d | nn.Conv2d):
        if not isinstance(module, nn.Linear | Conv1D):  # peft reads the widths of unknown classes
            module.out_features, module.in_features = module.weight.shape
        return Linear(module, NAME, config=lora_config, r=how.rank, lora_alpha=how.alpha)
    convolution = Conv1d if isinstance(module, nn.Conv1d) else Conv2d
    lora = convolution(module, NAME, config=lora_config, r=how.rank, lora_alpha=how.alpha)
    # missing in peft
    for setting in ("dilation", "padding_mode", "_reversed_padding_repeated_twice"):
        setattr(lora.lora_A[NAME], setting, getattr(module, setting))
    return lora


def factors_of(lora: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """(out, rank), which alpha / rank has been multiplied into, and (rank, in_)"""
    return lora.lora_B[NAME].weight.flatten(1) * lora.scaling[NAME], lora.lora_A[
        NAME
    ].weight.flatten(1)


def resting(module: nn.Module) -> torch.Tensor:
    return (
        module.parametrizations.weight.original
        if parametrize.is_parametrized(module)
        else module.weight
    )


def put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
