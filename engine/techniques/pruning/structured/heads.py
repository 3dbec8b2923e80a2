"""Attention heads: each is some rows of the layers that compute queries, keys and values, and
some columns of the layer that reads it.

The width of a head stays, and so does the model's; where several heads share keys and values
(grouped-query attention), either whole groups are removed, or equally many heads of every group.
"""

import re
from collections.abc import Iterator

import torch

from engine.errors import PlainError, option_name
from engine.models.shapes import KEPT_HEADS
from engine.step.pruning_plan import PruningPlan, TechniqueInput
from engine.techniques.pruning.structured.config import Structured
from engine.techniques.pruning.structured.coupled_structures import StructureGroup, StructureSlice
from engine.techniques.pruning.structured.dependencies import Heads, Sources, coupled_structures

NUMBERED = re.compile(r"(.+)\.(\d+)\.(\w+)")


def head_groups(technique_input: TechniqueInput, config: Structured) -> list[StructureGroup]:
    """Heads of every block with attention. Raises PlainError if heads cannot be removed as evenly
    as requested.
    """
    found = [group for group in coupled_structures(technique_input) if isinstance(group, Heads)]
    # all heads share the same keys and values, which are kept
    if all(len(heads.columns) == 1 for heads in found):
        return [family for heads in found for family in query_head_groups(heads)]
    if config.together == "groups" or all(heads.heads_per_group == 1 for heads in found):
        return [shared_key_group(heads) for heads in found]
    if config.scope == "global":
        raise PlainError(
            "Heads can be removed evenly from each group only with a share per layer; "
            f"set {option_name(config, 'scope')} to layer, or "
            f"{option_name(config, 'together')} to groups."
        )
    return [family for heads in found for family in query_head_groups(heads)]


def shared_key_group(found: Heads) -> StructureGroup:
    """Slices of queries, keys and values; they are one slice if one layer computes them all."""
    groups = len(found.columns)
    query_sources = [
        Sources(source.layer, source.rows.view(groups, -1)) for source in found.queries
    ]
    rows: dict[str, list[torch.Tensor]] = {}
    for source in (*query_sources, *found.shared):
        rows.setdefault(source.layer, []).append(source.rows)
    slices = (StructureSlice(name, "outputs", torch.cat(parts, 1)) for name, parts in rows.items())
    what = "head" if found.heads_per_group == 1 else "key/value group"
    return StructureGroup(
        found.block,
        what,
        (*slices, StructureSlice(found.reader, "inputs", found.columns.flatten(1))),
        heads=found.heads_per_group,
    )


def query_head_groups(found: Heads) -> Iterator[StructureGroup]:
    for group, columns in enumerate(found.columns):
        first = group * found.heads_per_group
        slices = (
            StructureSlice(
                source.layer, "outputs", source.rows[first : first + found.heads_per_group]
            )
            for source in found.queries
        )
        yield StructureGroup(
            found.block,
            "head",
            (*slices, StructureSlice(found.reader, "inputs", columns)),
            first,
            keeps_keys=True,
        )


def head_tensors(
    technique_input: TechniqueInput, pruning_plan: PruningPlan, families: list[StructureGroup]
) -> Iterator[dict[str, torch.Tensor]]:
    """Tensors of attention modules other than their layers, without the removed heads: those with
    an entry for each head, such as tables of relative positions. Also the numbers of the remaining
    heads, for arguments that are given for every head.
    """
    plain, changed_tensors, left = technique_input.original.plain, {}, {}
    layers = {layer.name for layer in technique_input.original.layers}
    for family in families:
        reader, attention = family.readers[0], family.parts[0].name.rpartition(".")[0]
        if reader.name not in pruning_plan.kept_indices:
            continue
        width = reader.positions.shape[1] // family.heads
        kept_heads = pruning_plan.kept_indices[reader.name].columns[::width] // width
        before = technique_input.original.model.get_submodule(reader.name).stored.shape[1] // width
        for name, value in plain.items():
            owner, _, tensor = name.rpartition(".")
            has_inner_tensors = (
                f"{owner}.".startswith(f"{attention}.")
                and owner not in layers
                and tensor != KEPT_HEADS
            )
            if has_inner_tensors and list(value.shape).count(before) == 1:
                changed_tensors[name] = value.index_select(
                    list(value.shape).index(before), kept_heads
                )
        changed_tensors |= head_norms(
            plain,
            attention,
            {
                before: kept_heads,
                before // family.heads: kept_heads[:: family.heads] // family.heads,
            },
        )
        name = f"{attention}.{KEPT_HEADS}"
        left[name] = plain[name][kept_heads] if name in plain else kept_heads
    if changed_tensors:
        yield changed_tensors
    yield changed_tensors | left


def head_norms(
    plain: dict[str, torch.Tensor], attention: str, kept_heads: dict[int, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Tensors of modules in numbered lists with an entry for each head or group of heads, such as
    StableLM's norms, renumbered for the remaining heads. ``kept_heads``: numbers of the remaining
    heads by the original number.
    """
    lists: dict[tuple[str, str], dict[int, torch.Tensor]] = {}
    for name, value in plain.items():
        if (
            numbered := NUMBERED.fullmatch(name.removeprefix(f"{attention}."))
            if name.startswith(f"{attention}.")
            else None
        ):
            lists.setdefault((numbered[1], numbered[3]), {})[int(numbered[2])] = value
    return {
        f"{attention}.{stem}.{index}.{tensor}": values[number].clone()
        for (stem, tensor), values in lists.items()
        if sorted(values) == list(range(len(values))) and len(values) in kept_heads
        for index, number in enumerate(kept_heads[len(values)].tolist())
    }
