"""Students made of a teacher's blocks and heads, with its weights or random ones."""

from dataclasses import replace

import torch
from torch import nn
from transformers import PreTrainedConfig

from engine.calibration.stream import block_sequences
from engine.errors import PlainError, option_name
from engine.models.layers import layers_of, text_reader
from engine.models.loaded_model import LoadedModel
from engine.models.loading import (
    ModelSource,
    changed_config,
    meta_model,
    model_class,
    prepare_for_inference,
)
from engine.models.shapes import fit_shapes
from engine.step.pruning_plan import PruningPlan, TechniqueInput
from engine.step.replacement_model import ReplacementModel
from engine.techniques.distillation.distill.config import (
    Distill,
    ModelTraining,
)
from engine.techniques.distillation.distill.student_config import block_count_fields, student_dtype
from engine.techniques.hooks import plan_removal
from engine.techniques.pruning.blocks.method import (
    BY_NUMBER,
    check_expert_layout,
)
from engine.techniques.pruning.structured.config import Structured
from engine.techniques.pruning.tracing import pruned_model_error
from engine.tensors.weights import DenseWeight
from engine.training.trainable_model import as_module_weight, unshare_tensors

RANDOM = "it began with random weights"


def student_from_teacher(
    config: ModelTraining,
    technique_input: TechniqueInput,
    pruning_plan: PruningPlan,
    start: str,
    seed: int,
    on_meta: bool,
) -> ReplacementModel:
    """Model with the remaining structures of the original, with its weights or random ones of the
    same shapes.
    """
    source = (
        technique_input.original
        if start == "teacher" or on_meta
        else random_original(technique_input, seed)
    )
    model, source_layers = pruned_copy(source, technique_input.folder, pruning_plan, on_meta)
    if start == "random":
        source_layers = {}
    return ReplacementModel(
        model,
        technique_input.folder,
        student_dtype(config, technique_input.folder),
        pruning_plan,
        source_layers=source_layers,
        initial_weights_note=RANDOM,
    )


def pruned_copy(
    source: LoadedModel, folder: ModelSource, pruning_plan: PruningPlan, on_meta: bool
) -> tuple[nn.Module, dict[str, str]]:
    """A model of the remaining layers, and the original name of each."""
    remaining = [
        (layer, after) for layer, after in pruning_plan.layers(source.layers) if not layer.tied_to
    ]
    stored_before = {
        layer.name: source.model.get_submodule(layer.name).stored for layer, _ in remaining
    }
    stored = {
        after.name: pruning_plan.planned_weight(layer, stored_before[layer.name])
        for layer, after in remaining
    }
    plain = pruning_plan.plain(source.plain)
    model = fit_shapes(
        meta_model(folder, changed_config(folder, pruning_plan.config)), stored, plain
    )
    if not on_meta:
        weights = {
            after.name: pruning_plan.stored_weight(layer, stored_before[layer.name]).to_dense(
                torch.float32
            )
            for layer, after in remaining
        }
        in_shape = {
            f"{name}.weight": as_module_weight(model.get_submodule(name), weight)
            for name, weight in weights.items()
        }
        model.load_state_dict(plain | in_shape, strict=False, assign=True)
        model.tie_weights()
        model = unshare_tensors(model, torch.device("cpu"))
    return model, {after.name: layer.name for layer, after in remaining}


def smaller_student_plan(config: Distill, technique_input: TechniqueInput) -> PruningPlan:
    """Evenly spaced blocks and, in each of them, the heads with the largest weights."""
    stacks = block_stacks(technique_input)
    small = fewer_blocks_plan(stacks, config.blocks, technique_input)
    if config.heads == 1:
        return small
    if any(layer.kind == "conv2d" and layer.block for layer in technique_input.original.layers):
        raise PlainError(
            f"{technique_input.folder} is made of convolutions and has no heads; set "
            f"{option_name(config, 'heads')} to 1, and keep fewer blocks or less width."
        )
    all_layers = replace(
        technique_input, targets=frozenset(layer.name for layer in technique_input.original.layers)
    )
    heads = plan_removal(Structured(what="heads", share=1 - config.heads, score="l2"), all_layers)
    kept_indices = {
        name: indices for name, indices in heads.kept_indices.items() if not small.removes(name)
    }
    return replace(
        small,
        kept_indices=kept_indices,
        replaced_tensors=heads.replaced_tensors,
        uniform=heads.uniform,
        notes=heads.notes,
    )


def block_stacks(technique_input: TechniqueInput) -> list[list[str]]:
    """Lists of consecutive blocks. Raises PlainError if no block can be removed."""
    rows = block_sequences(technique_input.original.model)
    if (
        not all(rows)
        or not rows
        or getattr(technique_input.original.model.config.get_text_config(), BY_NUMBER, False)
    ):
        raise PlainError(
            f"{technique_input.folder} has no list of blocks that could be shortened; choose "
            "another student."
        )
    return rows


def fewer_blocks_plan(
    stacks: list[list[str]], share: float, technique_input: TechniqueInput
) -> PruningPlan:
    """Plan of a model with evenly spaced blocks of each list, including the first."""
    kept_blocks = [
        evenly_spaced_blocks(
            row,
            share,
            {layer.block for layer in technique_input.original.layers if not layer.reads_text},
        )
        for row in stacks
    ]
    new_names = {
        block: f"{block.rpartition('.')[0]}.{number}"
        for row in kept_blocks
        for number, block in enumerate(row)
    }
    dropped = tuple(
        block
        for row, kept_blocks in zip(stacks, kept_blocks, strict=True)
        for block in row
        if block not in kept_blocks
    )
    small = (
        PruningPlan(
            removed_blocks=dropped,
            new_block_names=new_names,
            config=block_count_fields(kept_blocks, stacks, technique_input),
        )
        if dropped
        else PruningPlan()
    )
    check_expert_layout(small, technique_input)
    if small.removed_blocks and (failure := pruned_model_error(technique_input, small)):
        raise PlainError(
            f"A student of {len(kept_blocks[0])} of the {len(stacks[0])} blocks of "
            f"{technique_input.folder} cannot be made, since its parts depend on all of them "
            f"({failure[:120]}); set {option_name(Distill, 'blocks')} to 1, or choose "
            "another student."
        )
    return small


def evenly_spaced_blocks(row: list[str], share: float, image_blocks: set[str]) -> list[str]:
    """Evenly spaced blocks of a list, and those that text does not pass."""
    free = [block for block in row if block not in image_blocks]
    count = max(1, round(share * len(free)))
    chosen = {free[number * len(free) // count] for number in range(count)}
    return [block for block in row if block in chosen or block in image_blocks]


def random_original(technique_input: TechniqueInput, seed: int) -> LoadedModel:
    """The original with random initial weights, except in the parts for images or sound."""
    model, original = (
        random_model(technique_input.original.model.config, technique_input.folder, seed),
        technique_input.original,
    )
    layers, reads_text = layers_of(model), text_reader(model)
    state, weights = model.state_dict(), {f"{layer.name}.weight" for layer in layers}
    for layer in layers:
        module = model.get_submodule(layer.name)
        random_weight = DenseWeight(
            layer.matrix_shape,
            module.weight.detach().T
            if layer.kind == "conv1d"
            else module.weight.detach().flatten(1),
        )
        module.stored = (
            random_weight if layer.reads_text else original.model.get_submodule(layer.name).stored
        )
    plain = {
        name: value if reads_text(name) else original.plain.get(name, value)
        for name, value in state.items()
        if name not in weights
    }
    return LoadedModel(model, layers, plain, torch.device("cpu"))


def random_model(config: PreTrainedConfig, folder: ModelSource, seed: int) -> nn.Module:
    """Model with random initial weights in float32."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return prepare_for_inference(
            model_class(folder).from_config(config, dtype=torch.float32, trust_remote_code=False)
        )
