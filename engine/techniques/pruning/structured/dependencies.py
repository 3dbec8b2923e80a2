"""Coupled structures of a model, found by gradients in a trace instead of module names.

An input channel of a layer depends on an output channel of an earlier layer if the gradient between
them is not zero. Channels that depend on each other, directly or indirectly, must be removed
together and form one structure. In a feed-forward part each channel is a structure (a neuron); in
attention, heads or groups of heads that share keys and values are. (Dependency groups as in
DepGraph, arXiv:2301.12900, measured here instead of derived from operations.)
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import torch

from engine.calibration.stream import block_lists
from engine.models.layers import Layer
from engine.step.pruning_plan import TechniqueInput
from engine.techniques.pruning.tracing import (
    Trace,
    outline_of_original,
    random_outputs,
    trace_layers,
    with_shifted_tensors,
)

MAX_GROUPS = 1024  # maximum attention heads in one layer; larger numbers are not searched
RowMasks = dict[str, torch.Tensor]  # layer -> (rows,) bool


class Sources(NamedTuple):
    """Rows of one layer by structure. (structures, rows per structure) int64"""

    layer: str
    rows: torch.Tensor


@dataclass(frozen=True)
class Neurons:
    """Input channels of ``reader`` that each depend on their own rows."""

    block: str
    reader: str
    sources: tuple[Sources, ...]

    @property
    def layers(self) -> list[str]:
        return [self.reader, *(source.layer for source in self.sources)]


@dataclass(frozen=True)
class Heads:
    """Attention heads whose outputs ``reader`` reads, in groups that share keys and values; without
    sharing, each group has one head.
    """

    block: str
    reader: str
    columns: torch.Tensor  # (groups, heads of each, width) int64
    queries: tuple[Sources, ...]  # rows that a head has for itself
    shared: tuple[Sources, ...]  # rows that the heads of a group share

    @property
    def heads_per_group(self) -> int:
        return self.columns.shape[1]

    @property
    def layers(self) -> list[str]:
        return [self.reader, *(source.layer for source in (*self.queries, *self.shared))]


def coupled_structures(technique_input: TechniqueInput) -> list[Neurons | Heads]:
    """Neurons and heads of the model's blocks, in the model's order.

    Raises the model's own error if it cannot be traced.
    """
    with torch.inference_mode(False), torch.enable_grad():
        trace = trace_layers(
            outline_of_original(with_shifted_tensors(technique_input)), random_outputs()
        )
        order = {layer.name: layer for layer in technique_input.original.layers}
        blocks = sorted(
            (block for row in block_lists(technique_input.original.model) for block in row),
            key=len,
            reverse=True,
        )
        found = []
        group_by_key: dict[tuple[Any, ...], Neurons | Heads | None] = {}
        for reader, makers, has_other_sources in exclusive_readers(trace, order):
            block = next(
                (
                    block
                    for block in blocks
                    if all(name.startswith(f"{block}.") for name in (reader, *makers))
                ),
                None,
            )
            if block is None:
                continue
            form = type(technique_input.original.model.get_submodule(block))
            structure_key = (
                form,
                *((name.removeprefix(block), order[name].shape) for name in (reader, *makers)),
            )
            if structure_key not in group_by_key:
                group_by_key[structure_key] = structures_of(
                    DependencyProbe(trace, reader, makers), block
                )
            each = group_by_key[structure_key]
            if each and (isinstance(each, Heads) or not has_other_sources):
                found.append(structures_in_block(each, block))
    found += structures_of_idle_blocks(found, technique_input, trace)
    order_of_layer = {
        layer.name: index for index, layer in enumerate(technique_input.original.layers)
    }
    return sorted(found, key=lambda each: order_of_layer[each.reader])


def structures_of_idle_blocks(
    found: list[Neurons | Heads], technique_input: TechniqueInput, trace: Trace
) -> list[Neurons | Heads]:
    """Structures of blocks that received no token, as may happen with experts: those of a block
    whose layers have the same names and shapes.
    """
    shapes = {layer.name: layer.shape for layer in technique_input.original.layers}
    more: dict[str, Neurons | Heads] = {}
    for row in block_lists(technique_input.original.model):
        ran = {block for block in row if any(name.startswith(f"{block}.") for name in trace.inputs)}
        for group in (group for group in found if group.block in ran):
            for structures in (
                structures_in_block(group, block) for block in row if block not in ran
            ):
                if all(
                    shapes.get(one) == shapes[other]
                    for one, other in zip(structures.layers, group.layers, strict=True)
                ):
                    more.setdefault(structures.reader, structures)
    return list(more.values())


def exclusive_readers(
    trace: Trace, layers: dict[str, Layer]
) -> Iterator[tuple[str, RowMasks, bool]]:
    """Layers that are the only readers of their inputs, each with the rows of the layers that it
    reads, and True if it also reads an embedding, such as a table of relative positions shared by
    all blocks.
    """
    leaves = [(name, value) for name, calls in trace.outputs.items() for value in calls]
    rows_by_reader = {name: influencing_rows(leaves, calls) for name, calls in trace.inputs.items()}
    rows_by_reader[""] = influencing_rows(leaves, trace.results)
    readers: dict[str, torch.Tensor] = {}
    for rows in rows_by_reader.values():
        for name, mask in rows.items():
            readers[name] = readers.get(name, 0) + mask.long()
    for name, rows in rows_by_reader.items():
        sources = {
            source: mask for source, mask in rows.items() if layers[source].kind != "embedding"
        }
        plain = name and all(
            layers[source].kind in ("linear", "conv1d") for source in (name, *sources)
        )
        if (
            sources
            and plain
            and all((readers[source][mask] == 1).all() for source, mask in sources.items())
        ):
            yield (
                name,
                {source: sources[source] for source in layers if source in sources},
                len(sources) < len(rows),
            )


def influencing_rows(
    leaves: list[tuple[str, torch.Tensor]], values: list[torch.Tensor]
) -> RowMasks:
    """Rows of layers with a gradient to any of these values."""
    values = [value for value in values if value.requires_grad]
    if not values:
        return {}
    gradients = torch.autograd.grad(
        values,
        [leaf for _, leaf in leaves],
        list(map(positive_noise, values)),
        retain_graph=True,
        allow_unused=True,
    )
    return rows_with_gradient(
        (name, gradient) for (name, _), gradient in zip(leaves, gradients, strict=True)
    )


def rows_with_gradient(gradients: Iterator[tuple[str, torch.Tensor | None]]) -> RowMasks:
    found: RowMasks = {}
    for name, gradient in gradients:
        if gradient is not None and (mask := (gradient != 0).flatten(0, -2).any(0)).any():
            found[name] = found[name] | mask if name in found else mask
    return found


def positive_noise(like: torch.Tensor) -> torch.Tensor:
    """Random numbers whose sums do not cancel; softmax has no gradient with respect to the sum of
    its outputs.
    """
    return torch.rand(like.shape, generator=torch.Generator().manual_seed(like.numel())) + 0.5


class DependencyProbe:
    """Tests in both directions which columns of ``reader`` and which rows of ``makers`` depend on
    each other.
    """

    def __init__(self, trace: Trace, reader: str, makers: RowMasks):
        self.reader, self.makers = reader, list(makers)
        self.rows_of = makers
        self.inputs = trace.inputs[reader]
        self.leaves = [(name, value) for name in makers for value in trace.outputs[name]]
        self.weights = [positive_noise(value) for value in self.inputs]
        self.backward: tuple[Any, ...] | None = None

    @property
    def columns(self) -> int:
        return self.inputs[0].shape[-1]

    def gradients(self, weights: list[torch.Tensor]) -> Iterator[tuple[str, torch.Tensor | None]]:
        found = torch.autograd.grad(
            self.inputs,
            [leaf for _, leaf in self.leaves],
            weights,
            retain_graph=True,
            allow_unused=True,
        )
        return ((name, gradient) for (name, _), gradient in zip(self.leaves, found, strict=True))

    def rows_feeding(self, columns: torch.Tensor) -> RowMasks:
        """Rows with a gradient to the given columns, (columns,) bool."""
        return rows_with_gradient(self.gradients([weight * columns for weight in self.weights]))

    def columns_fed_by(self, rows: RowMasks) -> torch.Tensor:
        """Columns with a gradient to the given rows, computed in forward mode as a derivative of
        the backward pass.
        """
        if self.backward is None:
            weights = [torch.zeros_like(value, requires_grad=True) for value in self.inputs]
            leaves = [leaf for _, leaf in self.leaves]
            gradients = torch.autograd.grad(
                self.inputs, leaves, weights, create_graph=True, allow_unused=True
            )
            kept = [
                (name, gradient)
                for (name, _), gradient in zip(self.leaves, gradients, strict=True)
                if gradient is not None
            ]
            self.backward = weights, [name for name, _ in kept], [gradient for _, gradient in kept]
        weights, names, gradients = self.backward
        chosen = [
            positive_noise(gradient)
            * rows.get(name, torch.zeros(gradient.shape[-1], dtype=torch.bool))
            for name, gradient in zip(names, gradients, strict=True)
        ]
        found = torch.autograd.grad(
            gradients, weights, chosen, retain_graph=True, allow_unused=True
        )
        return torch.stack(
            [(gradient != 0).flatten(0, -2).any(0) for gradient in found if gradient is not None]
        ).any(0)

    def token_local_rows(self) -> RowMasks:
        """Rows that affect only their own token: queries and neurons, but not keys and values."""
        weights = [torch.zeros_like(value) for value in self.weights]
        weights[0].flatten(0, -2)[-1] = self.weights[0].flatten(0, -2)[-1]
        found: RowMasks = {}
        for name, gradient in self.gradients(weights):
            if gradient is not None and name not in found:
                found[name] = (gradient != 0).flatten(0, -2).sum(0) == 1
        return found


def structures_of(probe: DependencyProbe, block: str) -> Neurons | Heads | None:
    """Structures of the reader's channels, or None if all of them depend on each other, as after a
    norm, or irregularly.
    """
    alone = probe.token_local_rows()
    if set(alone) != set(probe.makers):
        return None
    if all(alone[name][mask].all() for name, mask in probe.rows_of.items()):
        return neurons_of(probe, block)
    return heads_of(probe, block, alone)


def neurons_of(probe: DependencyProbe, block: str) -> Neurons | None:
    """Map each row to its column, one binary digit of the row number at a time: a row affects
    columns with digit one or with digit zero.
    """
    numbers, positions = (
        torch.arange(probe.columns),
        {name: torch.zeros(len(mask), dtype=torch.long) for name, mask in probe.rows_of.items()},
    )
    for digit in range(max(1, (probe.columns - 1).bit_length())):
        ones = (numbers >> digit & 1).bool()
        met = probe.rows_feeding(ones), probe.rows_feeding(~ones)
        for name, mask in probe.rows_of.items():
            one, zero = (masks.get(name, torch.zeros_like(mask)) for masks in met)
            if not (one ^ zero)[mask].all():
                return None
            positions[name] += one.long() << digit
    sources = [
        rows_by_structure(name, positions[name], mask, probe.columns)
        for name, mask in probe.rows_of.items()
    ]
    return None if None in sources else Neurons(block, probe.reader, tuple(sources))


def rows_by_structure(
    name: str, number: torch.Tensor, mask: torch.Tensor, count: int
) -> Sources | None:
    """Rows of a layer by the number of their structure; None if structures have different numbers
    of rows.
    """
    rows = mask.nonzero().flatten()
    order = number[rows].argsort(stable=True)
    if len(rows) % count or not torch.equal(
        number[rows][order], torch.arange(count).repeat_interleave(len(rows) // count)
    ):
        return None
    return Sources(name, rows[order].view(count, -1))


def heads_of(probe: DependencyProbe, block: str, alone: RowMasks) -> Heads | None:
    """Heads by their own rows, and groups of heads by shared rows."""
    rows_of_probe = {name: mask & probe.rows_of[name] for name, mask in alone.items()}
    rows_of_probe = (
        rows_of_probe if any(mask.any() for mask in rows_of_probe.values()) else probe.rows_of
    )
    heads = connected_columns(probe, rows_of_probe)
    if heads is None:
        return None
    shared = without_common_rows(
        [
            {
                name: mask & ~rows_of_probe[name]
                for name, mask in probe.rows_feeding(columns).items()
            }
            for columns in heads
        ]
    )
    group_of = [
        next(other for other in range(len(heads)) if rows_overlap(shared[number], shared[other]))
        for number in range(len(heads))
    ]
    groups = [
        [number for number, _ in members]
        for _, members in groupby(enumerate(group_of), key=lambda pair: pair[1])
    ]
    widths, sizes = {int(columns.sum()) for columns in heads}, {len(group) for group in groups}
    if len(widths) != 1 or len(sizes) != 1 or len(groups) != len(set(group_of)):
        return None
    queries = [
        rows_per_structure(
            name, [probe.rows_feeding(columns)[name] & rows_of_probe[name] for columns in heads]
        )
        for name in probe.makers
        if rows_of_probe[name].any()
    ]
    common = [
        rows_per_structure(name, [shared[group[0]][name] for group in groups])
        for name in probe.makers
        if any(name in masks and masks[name].any() for masks in shared)
    ]
    if None in queries or None in common:
        return None
    columns = torch.stack([columns.nonzero().flatten() for columns in heads]).view(
        len(groups), sizes.pop(), -1
    )
    return Heads(block, probe.reader, columns, tuple(queries), tuple(common))


def without_common_rows(shared: list[RowMasks]) -> list[RowMasks]:
    """Drop rows that all heads share, such as the rotary part of the keys in multi-head latent
    attention, if every head has other rows; they are kept.
    """
    names = {name for masks in shared for name in masks}
    common = {
        name: torch.stack([masks[name] for masks in shared]).all(0)
        for name in names
        if all(name in masks for masks in shared)
    }
    exclusive = [
        {name: mask & ~common[name] if name in common else mask for name, mask in masks.items()}
        for masks in shared
    ]
    return (
        exclusive
        if all(any(mask.any() for mask in masks.values()) for masks in exclusive)
        else shared
    )


def column_mask(probe: DependencyProbe, column: int) -> torch.Tensor:
    return torch.arange(probe.columns) == column


def connected_columns(probe: DependencyProbe, through: RowMasks) -> list[torch.Tensor] | None:
    """Sets of columns, (columns,) bool each, connected through these rows; None if there is only
    one set or too many.
    """
    left, found = torch.ones(probe.columns, dtype=torch.bool), []
    while left.any() and len(found) < MAX_GROUPS:
        columns = column_mask(probe, int(left.nonzero()[0]))
        while True:
            rows = {
                name: mask & through[name] for name, mask in probe.rows_feeding(columns).items()
            }
            wider = probe.columns_fed_by(rows) | columns
            if torch.equal(wider, columns):
                break
            columns = wider
        if not (columns <= left).all():
            return None
        found.append(columns)
        left &= ~columns
    return found if 1 < len(found) < MAX_GROUPS else None


def rows_overlap(one: RowMasks, other: RowMasks) -> bool:
    return one is other or any(
        (mask & other[name]).any() for name, mask in one.items() if name in other
    )


def rows_per_structure(name: str, masks: list[torch.Tensor]) -> Sources | None:
    """Rows of each structure; None if structures have different numbers of rows or share some."""
    counts = {int(mask.sum()) for mask in masks}
    if len(counts) != 1 or torch.stack(masks).sum(0).max() > 1:
        return None
    return Sources(name, torch.stack([mask.nonzero().flatten() for mask in masks]))


def structures_in_block(found: Neurons | Heads, block: str) -> Neurons | Heads:
    """Same structures in another block of the same form."""

    def new_name(name: str) -> str:
        return block + name.removeprefix(found.block)

    def new_sources(sources: tuple[Sources, ...]) -> tuple[Sources, ...]:
        return tuple(Sources(new_name(source.layer), source.rows) for source in sources)

    if isinstance(found, Neurons):
        return Neurons(block, new_name(found.reader), new_sources(found.sources))
    return Heads(
        block,
        new_name(found.reader),
        found.columns,
        new_sources(found.queries),
        new_sources(found.shared),
    )
