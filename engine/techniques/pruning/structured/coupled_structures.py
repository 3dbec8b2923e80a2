"""Structures that are removed alike, such as the neurons of one feed-forward layer, and their
positions in the surrounding layers.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import torch

from engine.step.pruning_plan import KeptIndices, TechniqueInput

Side = Literal["outputs", "inputs"]


@dataclass(frozen=True)
class StructureSlice:
    """Slice of one layer or norm that belongs to the structures. Removing a structure from its
    readers' inputs only has the same effect on the model as removing it completely.
    """

    name: str
    side: Side
    positions: torch.Tensor  # (structures, positions of one) int64
    of_norm: bool = False


@dataclass(frozen=True)
class StructureGroup:
    block: str  # location: a block of the model, or a convolution
    what: str  # "neuron", "head", "key/value group", "channel"
    parts: tuple[StructureSlice, ...]
    first: int = 0  # number of the first one in the block
    heads: int = 1  # attention heads per structure; several in a group that shares keys and values
    keeps_keys: bool = False  # heads removed without the keys and values that they share

    @property
    def is_heads(self) -> bool:
        return self.what in ("head", "key/value group")

    @property
    def size(self) -> int:
        return len(self.parts[0].positions)

    @property
    def readers(self) -> list[StructureSlice]:
        return [part for part in self.parts if part.side == "inputs"]


def single_positions(count: int) -> torch.Tensor:
    """Positions of structures of one element each."""
    return torch.arange(count)[:, None]


def adjacent_positions(count: int, width: int) -> torch.Tensor:
    """Positions of structures of ``width`` adjacent elements each."""
    return torch.arange(count * width).view(count, width)


def kept_indices(
    groups: Iterable[tuple[StructureGroup, torch.Tensor]], size_of: Callable[[str, Side], int]
) -> dict[str, KeptIndices]:
    """Remaining slices of each changed layer and norm if the marked structures (True) of every
    family are kept.
    """
    removed: dict[tuple[str, Side], list[torch.Tensor]] = {}
    for family, kept in groups:
        for part in family.parts:
            if not kept.all():
                removed.setdefault((part.name, part.side), []).append(
                    part.positions[~kept].flatten()
                )
    left = {
        side: remaining_positions(size_of(*side), torch.cat(indices))
        for side, indices in removed.items()
    }
    return {
        name: KeptIndices(left.get((name, "outputs")), left.get((name, "inputs")))
        for name, _ in left
    }


def remaining_positions(count: int, removed: torch.Tensor) -> torch.Tensor:
    kept = torch.ones(count, dtype=torch.bool)
    kept[removed] = False
    return kept.nonzero().flatten()


def side_sizes(technique_input: TechniqueInput) -> Callable[[str, Side], int]:
    """Shape of a layer's matrix along this side; channels of a norm."""
    layers = {layer.name: layer for layer in technique_input.original.layers}

    def size_of(name: str, side: Side) -> int:
        if name in layers:
            return layers[name].matrix_shape[side == "inputs"]
        return max(
            len(value)
            for tensor, value in technique_input.original.plain.items()
            if tensor.startswith(f"{name}.") and value.ndim
        )

    return size_of
