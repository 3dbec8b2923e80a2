"""Removal of whole blocks (ShortGPT, Men et al. 2024, arXiv:2403.03853): those that change the
hidden state least.
"""

from collections.abc import Callable, Collection
from typing import Any

import torch

from engine.calibration.stream import BlockCall, active_hooks, block_lists, first_output
from engine.errors import PlainError, option_name
from engine.events import ProgressEvent
from engine.models.layers import OF_IMAGES, SKIP, layers_of
from engine.models.loading import changed_config, meta_model
from engine.results.schema.tables import NAN, StructureRow
from engine.step.layer_swap import LayerSwap
from engine.step.pruning_plan import PruningPlan, TechniqueInput
from engine.techniques.hooks import forecast_notes, plan_removal, survey
from engine.techniques.pruning.blocks.config import Blocks
from engine.techniques.pruning.tracing import first_difference, with_shifted_tensors

BLOCKS_DIFFER = (
    "The model's blocks differ in size, so the size that is left depends on which of them the "
    "calibration data chooses."
)
# number of first blocks without experts
DENSE_FIRST = ("first_k_dense_replace", "num_dense_layers")
# lists of the numbers of blocks without experts, with experts, or for images
NUMBERED = ("mlp_only_layers", "moe_layers", OF_IMAGES)
# number of last blocks that share keys and values of an earlier one
SHARED_LAST = "num_kv_shared_layers"
# lists with an entry for each block, as all with "layer" in their names
PER_BLOCK = ("activation_sparsity_pattern", "intermediate_size")
# option of GPT-2 that makes a block's computation depend on its number
BY_NUMBER = "scale_attn_by_inverse_layer_idx"


def prunable_blocks(technique_input: TechniqueInput) -> list[str]:
    """Blocks of the model that can be removed. Raises PlainError if there are none."""
    blocks = max(block_lists(technique_input.original.model), key=len, default=[])
    convolutions = any(
        layer.kind == "conv2d" and layer.block in blocks
        for layer in technique_input.original.layers
    )
    if convolutions or len(blocks) < 2:
        reason = (
            "its parts are convolutions, each with its own width"
            if convolutions
            else "it has no list of blocks"
        )
        raise PlainError(
            f"{technique_input.folder} has no removable blocks ({reason}); choose another "
            "technique."
        )
    if getattr(technique_input.original.model.config.get_text_config(), BY_NUMBER, False):
        raise PlainError(
            f"The blocks of {technique_input.folder} depend on their number ({BY_NUMBER}), so none "
            "can be removed; choose another technique."
        )
    return blocks


@survey.register
def survey_blocks(config: Blocks, technique_input: TechniqueInput) -> dict[str, float]:
    """Block influence: one minus the mean cosine of the hidden state before and after it, over all
    tokens except padding (equation 1); NaN in a forecast.
    """
    blocks = prunable_blocks(technique_input)
    return (
        block_influences(blocks, technique_input.layer_swap)
        if technique_input.layer_swap
        else dict.fromkeys(blocks, NAN)
    )


@torch.no_grad()
def block_influences(blocks: list[str], layer_swap: LayerSwap) -> dict[str, float]:
    sums, counts, model = (
        dict.fromkeys(blocks, 0.0),
        dict.fromkeys(blocks, 0),
        layer_swap.original.model,
    )
    masks: dict[str, torch.Tensor] = {}

    def make_hook(name: str) -> Callable[..., Any]:
        def hook(
            module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
        ) -> None:
            if BlockCall(args, kwargs).states.shape != first_output(output).shape:
                raise PlainError(
                    f"{layer_swap.context.folder} has no removable blocks, because they differ in "
                    "width; choose another technique."
                )
            cosine = torch.nn.functional.cosine_similarity(
                BlockCall(args, kwargs).states.float(), first_output(output).float(), dim=-1
            )
            unmasked = cosine[masks["mask"]] if "mask" in masks else cosine
            sums[name] += unmasked.double().sum().item()
            counts[name] += unmasked.numel()

        return hook

    with active_hooks(
        [
            model.get_submodule(name).register_forward_hook(make_hook(name), with_kwargs=True)
            for name in blocks
        ]
    ):
        for done, batch in enumerate(layer_swap.batches):
            layer_swap.context.progress(
                ProgressEvent("reading-calibration", done, len(layer_swap.batches))
            )
            if "attention_mask" in batch:
                masks["mask"] = batch["attention_mask"].bool().to(layer_swap.original.device)
            layer_swap.logits(batch)
    found = {
        name: 1 - total / counts[name] if counts[name] else NAN for name, total in sums.items()
    }
    if not all(abs(found[name]) < float("inf") for name in blocks if counts[name]):
        raise PlainError(
            "The states between blocks become NaN or infinite on the calibration data; "
            "compute in float32, or give other data."
        )
    return found


@plan_removal.register
def plan_removal_blocks(
    config: Blocks, technique_input: TechniqueInput, survey_result: dict[str, float] | None = None
) -> PruningPlan:
    influence = survey_blocks(config, technique_input) if survey_result is None else survey_result
    small, probe = (
        plan_without_blocks(
            blocks_to_remove(config, technique_input, influence), influence, technique_input
        ),
        with_shifted_tensors(technique_input),
    )
    if small.removed_blocks and first_difference(probe, small):
        needed = {
            block
            for block in influence
            if first_difference(probe, plan_without_blocks([block], influence, technique_input))
        }
        small = plan_without_blocks(
            blocks_to_remove(config, technique_input, influence, needed), influence, technique_input
        )
        if differs := first_difference(probe, small):
            raise PlainError(
                f"{config.count} blocks of {technique_input.folder} "
                f"({technique_input.folder.architecture}) cannot be removed: the smaller model "
                f"would differ from the original without them ({differs}). Lower "
                f"{option_name(config, 'count')}, or choose another technique."
            )
    return small


@forecast_notes.register
def forecast_notes_blocks(config: Blocks, technique_input: TechniqueInput) -> tuple[str, ...]:
    return (BLOCKS_DIFFER,) if blocks_differ_in_size(technique_input) else ()


def blocks_differ_in_size(technique_input: TechniqueInput) -> bool:
    """Return True if the remaining size depends on which blocks are removed."""
    shapes: dict[str, list[Any]] = {block: [] for block in prunable_blocks(technique_input)}
    for layer in technique_input.original.layers:
        if layer.block in shapes and not layer.tied_to:
            shapes[layer.block].append((layer.name.removeprefix(layer.block), layer.shape))
    return len(set(map(tuple, shapes.values()))) > 1


def plan_without_blocks(
    removed: list[str], influence: dict[str, float], technique_input: TechniqueInput
) -> PruningPlan:
    """Return the model without these blocks; later blocks move up."""
    left = [block for block in influence if block not in removed]
    stem = left[0].rpartition(".")[0]
    new_names = {block: f"{stem}.{number}" for number, block in enumerate(left)}
    rows = (
        StructureRow(block, "block", number, score, block not in removed)
        for number, (block, score) in enumerate(influence.items())
    )
    config = config_without_blocks(removed, list(influence), technique_input) if removed else {}
    small = PruningPlan(
        removed_blocks=tuple(removed),
        new_block_names=new_names if removed else {},
        config=config,
        structures=tuple(rows),
    )
    check_expert_layout(small, technique_input)
    return small


def check_expert_layout(pruning_plan: PruningPlan, technique_input: TechniqueInput) -> None:
    """Check configurations that determine by block number which blocks have experts.

    Raises PlainError if the remaining blocks would be assigned wrongly.
    """
    if not (
        pruning_plan.removed_blocks
        and any(layer.reached < 1 for layer in technique_input.original.layers)
    ):
        return
    expected = {
        after.name: after.shape for _, after in pruning_plan.layers(technique_input.original.layers)
    }
    if expected != {
        layer.name: layer.shape
        for layer in layers_of(
            meta_model(
                technique_input.folder, changed_config(technique_input.folder, pruning_plan.config)
            )
        )
    }:
        raise PlainError(
            f"Some blocks of {technique_input.folder} have experts and others have none, by a rule "
            "of its configuration that the blocks left would break; choose another number of "
            "blocks, or another technique."
        )


def blocks_to_remove(
    config: Blocks,
    technique_input: TechniqueInput,
    influence: dict[str, float],
    needed: Collection[str] = (),
) -> list[str]:
    """Select the blocks to remove, least influence first; none may leave a layer without its
    inputs.

    ``needed``: blocks that others depend on, such as a first block without a norm.
    """
    names = {layer.name for layer in technique_input.original.layers if not layer.tied_to}
    free = [
        block
        for block in influence
        if {name for name in names if name.startswith(f"{block}.")} <= technique_input.targets
    ]
    if config.count >= len(influence):
        raise PlainError(
            f"{config.count} of {len(influence)} blocks would leave none; take out "
            f"{len(influence) - 1} at most."
        )
    removable = [block for block in free if block not in needed]
    if not removable and len(free) == len(influence):
        raise PlainError(
            f"No block of {technique_input.folder} ({technique_input.folder.architecture}) can be "
            "removed, since the other blocks would compute something else without it; choose "
            "another technique."
        )
    if len(removable) < config.count <= len(free):
        raise PlainError(
            f"Only {len(removable)} of {len(influence)} blocks of {technique_input.folder} can be "
            "removed, because others depend on "
            f"{', '.join(needed)}; lower {option_name(config, 'count')} to that."
        )
    if config.count > len(free):
        raise PlainError(
            f"Only {len(free)} of {len(influence)} blocks can be removed, since {SKIP} "
            f"names layers of the others; lower {option_name(config, 'count')} to that."
        )
    # text passes all removable blocks, so none of these is NaN
    return sorted(removable, key=influence.get)[: config.count]


def config_without_blocks(
    removed: list[str], blocks: list[str], technique_input: TechniqueInput
) -> dict[str, Any]:
    """Fields of the configuration that count blocks or have an entry for each block."""
    left = [number for number, block in enumerate(blocks) if block not in removed]
    fields = technique_input.original.model.config.get_text_config().to_dict()
    lists = per_block_lists(fields, len(blocks))
    counted = {"num_hidden_layers": len(left)} | {
        name: [value[number] for number in left] for name, value in lists.items()
    }
    # of a backbone, which can return the states of any block
    if (stages := fields.get("stage_names")) and len(stages) == len(blocks) + 1:
        counted |= {
            "stage_names": stages[: len(left) + 1],
            "out_features": stages[len(left) : len(left) + 1],
            "out_indices": [len(left)],
        }
    return counted | expert_fields(fields, left)


def per_block_lists(fields: dict[str, Any], blocks: int) -> dict[str, list[Any]]:
    """Fields with an entry for each block."""
    named = {name: value for name, value in fields.items() if "layer" in name or name in PER_BLOCK}
    return {
        name: value
        for name, value in named.items()
        if isinstance(value, list) and len(value) == blocks
    }


def expert_fields(fields: dict[str, Any], left: list[int]) -> dict[str, Any]:
    """Fields that determine which blocks have experts, or share keys and values, if only the blocks
    numbered ``left`` remain.
    """
    counts = {
        name: sum(number < fields[name] for number in left)
        for name in DENSE_FIRST
        if isinstance(fields.get(name), int)
    }
    if shared := fields.get(SHARED_LAST):
        counts[SHARED_LAST] = sum(number >= fields["num_hidden_layers"] - shared for number in left)
    lists = {name: fields[name] for name in NUMBERED if isinstance(fields.get(name), list)}
    return counts | {
        name: [index for index, number in enumerate(left) if number in numbers]
        for name, numbers in lists.items()
    }
