"""The compressible layers of any architecture, found by type: linear layers, GPT-2's Conv1D, convolutions, embeddings."""

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import groupby
from typing import Literal

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from engine.errors import PlainError
from engine.recipe import Layers

Kind = Literal["linear", "conv1d", "conv2d", "embedding"]
# exact types: a subclass may use its weight in a way of its own
KINDS: dict[type[nn.Module], Kind] = {nn.Linear: "linear", Conv1D: "conv1d", nn.Conv2d: "conv2d", nn.Embedding: "embedding"}
SCALED = "ScaledWordEmbedding"  # how transformers' embeddings end that multiply what they read by ``embed_scale``: Gemma's, and others'
BLOCK = re.compile(r"(.*?\.\d+)\.")


@dataclass(frozen=True)
class Layer:
    name: str
    kind: Kind
    shape: tuple[int, ...]  # output channels first
    itemsize: int  # bytes of one weight in the model's file
    tied_to: str  # the layer that holds the same tensor, or ""
    dtype: str = "float32"  # of its weights in the model's file
    groups: int = 1  # of a convolution

    @property
    def block(self) -> str:
        """Name of the repeated block the layer stands in, or ""."""
        found = BLOCK.match(self.name)
        return found[1] if found else ""

    @property
    def parameters(self) -> int:
        return torch.Size(self.shape).numel()

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """Laid flat: (out, in_)."""
        return self.shape[0], self.parameters // max(1, self.shape[0])

    @property
    def original_bytes(self) -> int:
        return self.parameters * self.itemsize


def compressible(module: nn.Module) -> bool:
    """Whether ``Unpacking`` can stand in for it. A convolution that pads with anything but zeros stays as it is."""
    return kind_of(module) is not None and getattr(module, "padding_mode", "zeros") == "zeros"


def kind_of(module: nn.Module) -> Kind | None:
    scaled = type(module).__base__ is nn.Embedding and type(module).__name__.endswith(SCALED) and hasattr(module, "embed_scale")
    return "embedding" if scaled else KINDS.get(type(module))


def layers_of(model: nn.Module) -> list[Layer]:
    """Every compressible layer in the model's order. Of tied ones the first holds the tensor."""
    holders: dict[int, str] = {}
    found = []
    for name, module in model.named_modules():
        if compressible(module):
            weight = module.weight
            holder = holders.setdefault(id(weight), name)
            tied_to, groups = "" if holder == name else holder, getattr(module, "groups", 1)
            found.append(Layer(name, kind_of(module), shape_of(module), weight.itemsize, tied_to, dtype_of(weight), groups))
    return found


def dtype_of(weight: torch.Tensor) -> str:
    return str(weight.dtype).removeprefix("torch.")


def blocks_of(layers: list[Layer]) -> list[list[Layer]]:
    """The layers that hold a tensor, block by block: what is compressed and written together."""
    blocks = groupby((layer for layer in layers if not layer.tied_to), key=lambda layer: layer.block)
    return [list(block) for _, block in blocks]


def shape_of(module: nn.Module) -> tuple[int, ...]:
    shape = tuple(module.weight.shape)
    return shape[::-1] if isinstance(module, Conv1D) else shape


def matrix(module: nn.Module) -> torch.Tensor:
    """The layer's weight, output channels first and laid flat; a view.  (out, in_)"""
    weight = module.weight.detach()
    return weight.T if isinstance(module, Conv1D) else weight.flatten(1)


def chosen(layers: list[Layer], wanted: Layers) -> list[Layer]:
    """The layers that steps may touch: all but embeddings and the skipped, and the embeddings that are included.

    A tied tensor goes by all its names: skipping either skips both. Raises PlainError when a pattern names no layer,
    or nothing is left.
    """
    for pattern in (*wanted.skip, *wanted.include):
        if pattern not in Layers().skip and not any(fnmatchcase(layer.name, pattern) for layer in layers):
            raise PlainError(
                f"No layer is called {pattern[:80]!r}; this model's are named like {layers[-1].name!r}, and globs such as '*.mlp.*' work."
            )
    left = [layer for layer in layers if not layer.tied_to and not why_kept(layer, layers, wanted)]
    if not left:
        raise PlainError("No layer is left to compress: take a pattern out of layers.skip, or name an embedding in layers.include.")
    return left


def why_kept(layer: Layer, layers: list[Layer], wanted: Layers) -> str:
    """Why no step may touch a layer that holds a tensor; empty where one may."""
    names = [other.name for other in layers if layer.name in (other.name, other.tied_to)]

    def named(patterns: tuple[str, ...]) -> bool:
        return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)

    if layer.kind == "embedding" and not named(wanted.include):
        return "embeddings are compressed only where layers.include names them"
    return "layers.skip names it" if named(wanted.skip) else ""
