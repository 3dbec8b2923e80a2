"""Pruning of neurons, heads and channels: compute scores, choose structures, and plan the remaining
model.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import floor
from typing import Any

import torch

from engine.calibration import InputStats
from engine.calibration.gradient_stats import GradientStats
from engine.errors import PlainError, option_name
from engine.models.layers import SKIP
from engine.results.schema.tables import StructureRow
from engine.step.pruning_plan import KeptIndices, PruningPlan, TechniqueInput
from engine.techniques.hooks import plan_removal, survey
from engine.techniques.pruning.masks import smallest_mask
from engine.techniques.pruning.structured.channels import (
    channel_groups,
    check_convolutional,
    is_convolutional,
)
from engine.techniques.pruning.structured.config import Structured
from engine.techniques.pruning.structured.coupled_structures import (
    StructureGroup,
    kept_indices,
    side_sizes,
)
from engine.techniques.pruning.structured.heads import head_groups, head_tensors
from engine.techniques.pruning.structured.neurons import neuron_groups
from engine.techniques.pruning.tracing import first_difference, with_shifted_tensors

ORDERS = {"l1": 1.0, "l2": 2.0, "linf": torch.inf}  # of a norm
# names of their number in config.json
NEURON_COUNTS = (
    "intermediate_size",
    "moe_intermediate_size",
    "ffn_dim",
    "n_inner",
    "ffn_hidden_size",
    "hidden_dim",
)  # names of the sizes in config.json
SHARE_TOLERANCE = 0.005  # of a share: smaller rounding differences are not reported
StatsByLayer = dict[str, InputStats | GradientStats]


@dataclass(frozen=True)
class ScoredGroup:
    """A group of structures with the score of each. (structures,) float32"""

    family: StructureGroup
    scores: torch.Tensor


# --- which there are ------------------------------------------------------------------------------


def structure_groups(config: Structured, technique_input: TechniqueInput) -> list[StructureGroup]:
    """Families that may be pruned: none of their layers is skipped. Raises PlainError if the model
    has none.
    """
    convolutions = is_convolutional(technique_input)
    what = ("channels" if convolutions else "neurons") if config.what == "auto" else config.what
    if what == "channels":
        check_convolutional(technique_input)
    if convolutions and what != "channels":
        raise PlainError(
            f"{technique_input.folder} is a convolutional network without {what} to remove; set "
            f"{option_name(config, 'what')} to channels."
        )
    try:
        found = {
            "neurons": neuron_groups,
            "channels": channel_groups,
            "heads": lambda technique_input: head_groups(technique_input, config),
        }[what](technique_input)
    except PlainError:
        raise
    # a model whose operations cannot be traced
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise PlainError(none_found_message(what, technique_input)) from error
    if not found:
        raise PlainError(none_found_message(what, technique_input))
    layers = {layer.name for layer in technique_input.original.layers}
    free = [
        family
        for family in found
        if all(
            part.name in technique_input.targets or part.name not in layers for part in family.parts
        )
    ]
    if not free:
        raise PlainError(
            f"Each of the {what} of {technique_input.folder} is in a layer that {SKIP} "
            "lists; remove one from the list."
        )
    return free


def none_found_message(kind: str, technique_input: TechniqueInput) -> str:
    if kind == "channels":
        return (
            f"Every channel of {technique_input.folder} passes through a grouped convolution, so "
            "none can be removed alone; choose another technique."
        )
    return (
        f"No {kind} were found in {technique_input.folder} ({technique_input.folder.architecture}) "
        "that could be removed without changing what the others compute; set "
        f"{option_name(Structured, 'what')} to another kind, or choose another technique."
    )


def check_equivalent(
    technique_input: TechniqueInput, pruning_plan: PruningPlan, families: list[StructureGroup]
) -> PruningPlan:
    """Plan of the smaller model, which computes the same as the original without those structures.
    For heads, related tensors are included if needed.

    Raises PlainError if the smaller model would compute something else.
    """
    probe = with_shifted_tensors(technique_input)
    differs = first_difference(probe, pruning_plan) if pruning_plan.kept_indices else None
    if differs and families[0].is_heads:
        candidates = (
            head_tensors(source, pruning_plan, families) for source in (technique_input, probe)
        )
        for tensors, probed in zip(*candidates, strict=True):
            if not first_difference(probe, replace(pruning_plan, replaced_tensors=probed)):
                return replace(pruning_plan, replaced_tensors=tensors)
    if differs:
        reason = "the smaller model would compute something else than the original without them"
        if differs.failure:
            reason = "this architecture does not compute with fewer of them"
        raise PlainError(
            f"The {families[0].what}s of {technique_input.folder} "
            f"({technique_input.folder.architecture}) cannot be removed: {reason} ({differs}). Set "
            f"{option_name(Structured, 'what')} to another kind, or choose another technique."
        )
    return pruning_plan


# --- how much they matter -------------------------------------------------------------------------


@survey.register
def survey_structured(config: Structured, technique_input: TechniqueInput) -> list[ScoredGroup]:
    """Every group with its scores. A forecast has no data and uses norms."""
    families = structure_groups(config, technique_input)
    if config.needs == "nothing" or technique_input.layer_swap is None:
        return [
            ScoredGroup(
                family,
                group_norms(
                    family, weight_lookup(technique_input), ORDERS.get(config.score, 2)
                ).cpu(),
            )
            for family in families
        ]
    stats = technique_input.layer_swap.layer_stats(
        config.needs, [part.name for family in families for part in family.readers]
    )
    by_data = {"activations": output_sizes, "taylor": loss_changes}[config.score]
    return [
        ScoredGroup(family, by_data(family, weight_lookup(technique_input), stats).cpu())
        for family in families
    ]


def weight_lookup(technique_input: TechniqueInput) -> Callable[[str], torch.Tensor]:
    return lambda name: technique_input.original.model.get_submodule(name).stored.to_dense(
        torch.float32
    )


def group_norms(
    family: StructureGroup, weight_of: Callable[[str], torch.Tensor], order: float
) -> torch.Tensor:
    """Ln norm of all weights of a structure, including those of its readers: the norm of its rows'
    and columns' norms.
    """
    sizes = []
    for part in family.parts:
        if not part.of_norm:
            lines = torch.linalg.vector_norm(
                weight_of(part.name), order, dim=1 if part.side == "outputs" else 0
            )
            sizes.append(lines[part.positions.to(lines.device)])
    return torch.linalg.vector_norm(torch.cat(sizes, 1), order, dim=1)


def output_sizes(
    family: StructureGroup, weight_of: Callable[[str], torch.Tensor], stats: StatsByLayer
) -> torch.Tensor:
    """|X_j| |W_:j| over a structure's inputs to its readers: Wanda's score of a column
    (arXiv:2306.11695), the root of the squares' sum.
    """
    total = 0.0
    for part in family.readers:
        columns = weight_of(part.name).norm(dim=0) * layer_stats(part.name, stats).rms
        total = total + columns.square()[part.positions.to(columns.device)].sum(1)
    return total.sqrt()


def loss_changes(
    family: StructureGroup, weight_of: Callable[[str], torch.Tensor], stats: StatsByLayer
) -> torch.Tensor:
    """|sum of w g| over a structure's columns in its readers: the gradient of a gate on its output
    (arXiv:1905.10650, section 2.2).
    """
    total = 0.0
    for part in family.readers:
        columns = (weight_of(part.name) * layer_stats(part.name, stats).mean).sum(0)
        total = total + columns[part.positions.to(columns.device)].sum(1)
    return total.abs()


def layer_stats(name: str, stats: StatsByLayer) -> InputStats | GradientStats:
    if name not in stats:
        raise PlainError(
            f"No calibration data reached {name}, so its inputs are unknown; add it "
            f"to {SKIP}, or rank structures by weight norms."
        )
    return stats[name]


# --- which go -------------------------------------------------------------------------------------


@plan_removal.register
def plan_removal_structured(
    config: Structured,
    technique_input: TechniqueInput,
    survey_result: list[ScoredGroup] | None = None,
) -> PruningPlan:
    every = survey_structured(config, technique_input) if survey_result is None else survey_result
    masks = (
        global_kept_masks(config, every)
        if config.scope == "global"
        else [kept_mask(config, group) for group in every]
    )
    if config.share and all(mask.all() for mask in masks):
        raise PlainError(nothing_removed_message(config, every))
    pairs = [(group.family, mask) for group, mask in zip(every, masks, strict=True)]
    cuts = kept_indices(pairs, side_sizes(technique_input))
    rows = tuple(
        row for group, mask in zip(every, masks, strict=True) for row in structure_rows(group, mask)
    )
    fields = {
        "notes": layer_notes(config, pairs),
        "structures": rows,
        "block_of_layer": blocks_of_layers([group.family for group in every]),
    }
    small = PruningPlan(cuts, uniform=uniform_config(technique_input, cuts, pairs), **fields)
    return check_equivalent(technique_input, small, [group.family for group in every])


def removal_count(share: float, count: int) -> int:
    """Number of structures to remove, rounded to the nearest integer, halves up."""
    return floor(share * count + 0.5)


def kept_mask(config: Structured, group: ScoredGroup) -> torch.Tensor:
    """Mask of the structures of a family to keep.  (structures,) bool"""
    count = removal_count(config.share, len(group.scores))
    if count == len(group.scores):
        raise PlainError(
            f"A share of {config.share:.0%} would leave no {group.family.what} in "
            f"{group.family.block}, which has {count}; lower "
            f"{option_name(config, 'share')}."
        )
    return ~smallest_mask(group.scores, count)


def global_kept_masks(config: Structured, every: list[ScoredGroup]) -> list[torch.Tensor]:
    """Masks chosen among all families; the best structure of each is always kept."""
    count = sum(len(group.scores) for group in every)
    removed_count = removal_count(config.share, count)
    if removed_count > count - len(every):
        kind = every[0].family.what
        raise PlainError(
            f"A share of {config.share:.0%} would remove {removed_count} of {count} {kind}s, and "
            f"each of {len(every)} layers keeps one; lower "
            f"{option_name(config, 'share')}."
        )
    compared = [comparable_scores(config, group.scores) for group in every]
    for scores in compared:
        scores[scores.argmax()] = torch.inf
    return list(
        (~smallest_mask(torch.cat(compared), removed_count)).split(
            [len(scores) for scores in compared]
        )
    )


def comparable_scores(config: Structured, scores: torch.Tensor) -> torch.Tensor:
    """Scores comparable between layers: norms relative to the layer's mean; changes of the loss are
    comparable already.
    """
    return scores.clone() if config.score == "taylor" else scores / scores.mean().clamp_min(1e-30)


def nothing_removed_message(config: Structured, every: list[ScoredGroup]) -> str:
    largest_group = (
        max(len(group.scores) for group in every)
        if config.scope == "layer"
        else sum(len(group.scores) for group in every)
    )
    return (
        f"A share of {config.share:.0%} of {largest_group} {every[0].family.what}s is less than "
        f"half of one, so nothing would be removed; set it to {0.5 / largest_group:.0%} or more."
    )


# --- what is said of it ---------------------------------------------------------------------------


def structure_rows(group: ScoredGroup, mask: torch.Tensor) -> list[StructureRow]:
    family = group.family
    return [
        StructureRow(family.block, family.what, family.first + index, score, kept)
        for index, (score, kept) in enumerate(
            zip(group.scores.tolist(), mask.tolist(), strict=True)
        )
    ]


def blocks_of_layers(families: list[StructureGroup]) -> dict[str, str]:
    """Block of each layer or norm in a family: that of its outputs, otherwise that of its
    inputs.
    """
    sides = ("inputs", "outputs")
    return {
        part.name: family.block
        for side in sides
        for family in families
        for part in family.parts
        if part.side == side
    }


def layer_notes(
    config: Structured, pairs: list[tuple[StructureGroup, torch.Tensor]]
) -> dict[str, str]:
    """Notes by layer on the remaining structures, and where the share could not be met."""
    counts: dict[tuple[str, str], list[int]] = {}
    for family, mask in pairs:
        for part_side in {(part.name, part.side) for part in family.parts}:
            left, of = counts.get(part_side, (0, 0))
            counts[part_side] = [left + int(mask.sum()), of + family.size]
    kind, notes = pairs[0][0].what, {}
    for (name, side), (left, of) in sorted(counts.items(), key=lambda item: item[0][1] == "inputs"):
        rounded = config.scope == "layer" and abs(1 - left / of - config.share) > SHARE_TOLERANCE
        words = (
            f"{left} of {of} {kind}s left" if side == "outputs" else f"reads {left} of {of} {kind}s"
        )
        notes.setdefault(name, []).append(
            words
            + (
                f" ({config.share:.0%} was requested; only whole {kind}s are removed)"
                if rounded
                else ""
            )
        )
    return {name: "; ".join(words) for name, words in notes.items()}


def uniform_config(
    technique_input: TechniqueInput,
    indices: dict[str, KeptIndices],
    pairs: list[tuple[StructureGroup, torch.Tensor]],
) -> dict[str, Any]:
    """Fields of config.json that would describe the shapes if all layers were equal; the writer
    checks whether they do.
    """
    (family, mask), counts = pairs[0], {int(mask.sum()) for _, mask in pairs}
    if family.what == "channel":
        return stage_widths(technique_input, indices)
    if len(counts) > 1 or mask.all():
        return {}
    if family.what == "neuron":
        return dict.fromkeys(NEURON_COUNTS, int(mask.sum()))
    reader = family.readers[0]
    width = reader.positions.shape[1] // family.heads
    groups = (
        {}
        if family.keeps_keys
        else dict.fromkeys(("num_key_value_heads", "num_kv_heads"), int(mask.sum()))
    )
    # in multi-head latent attention it is the width of another part
    head_width = getattr(technique_input.original.model.config.get_text_config(), "head_dim", width)
    return {
        "num_attention_heads": len(indices[reader.name].columns) // width,
        **groups,
        **({"head_dim": width} if head_width == width else {}),
    }


def stage_widths(
    technique_input: TechniqueInput, indices: dict[str, KeptIndices]
) -> dict[str, Any]:
    """Fields of a ResNet: the channels of its first convolution, and of the last one of
    each stage.
    """
    kernels = [layer for layer in technique_input.original.layers if layer.kind == "conv2d"]
    rows = {
        layer.name: indices[layer.name].shape(*layer.matrix_shape)[0]
        if layer.name in indices
        else layer.shape[0]
        for layer in kernels
    }
    stages = {layer.block: rows[layer.name] for layer in kernels if layer.block}
    return {"embedding_size": rows[kernels[0].name], "hidden_sizes": list(stages.values())}
