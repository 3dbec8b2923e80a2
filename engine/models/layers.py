"""Compressible layers of any architecture, recognized by their computation: linear maps,
convolutions, embeddings.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import groupby

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from engine.errors import PlainError, option_name
from engine.models.layer_kinds import Kind, layer_kind
from engine.models.routed_layers import routed_layers, router_names, token_shares
from engine.recipe import Layers

OTHER_PART = "it belongs to the part for images or sound, which is not compressed"
# fields of a configuration with the numbers of blocks that read images only
OF_IMAGES = "cross_attention_layers"
BLOCK = re.compile(r"(.*?\.\d+)\.")
SKIP, INCLUDE = option_name(Layers, "skip"), option_name(Layers, "include")
SKIPPED = f"{SKIP} names it"
TIED_KEPT = (
    f"it is tied to lm_head, which {SKIP} names by default; set {SKIP} to an empty list to "
    "compress both"
)
EMBEDDING_KEPT = f"embeddings are compressed only if {INCLUDE} names them"
ROUTER_KEPT = f"routers of experts are compressed only if {INCLUDE} names them"


@dataclass(frozen=True)
class Layer:
    name: str
    kind: Kind
    shape: tuple[int, ...]  # output channels first
    itemsize: int  # bytes of one weight in the model's file
    tied_to: str  # the layer that holds the same tensor, or ""
    dtype: str = "float32"  # of its weights in the model's file
    groups: int = 1  # of a convolution
    reads_text: bool = True  # False in a multimodal model's part for images or sound
    routes: bool = False  # selects the experts of a token
    reached: float = 1.0  # mean share of all tokens that reach it; below 1 for experts

    @property
    def block(self) -> str:
        """Name of the repeated block that contains the layer, or ""."""
        found = BLOCK.match(self.name)
        return found[1] if found else ""

    @property
    def parameters(self) -> int:
        return torch.Size(self.shape).numel()

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """Shape as a matrix: (out, in_)."""
        return self.shape[0], self.parameters // max(1, self.shape[0])

    @property
    def original_bytes(self) -> int:
        return self.parameters * self.itemsize


def is_depthwise(layer: Layer) -> bool:
    """Return True for a convolution that computes each channel from that channel alone."""
    return layer.groups > 1 and layer.groups == layer.shape[0] and layer.shape[1] == 1


def is_compressible(module: nn.Module) -> bool:
    """Return True if ``Unpacking`` can replace the module."""
    return layer_kind(module) is not None


def kind_of(module: nn.Module) -> Kind | None:
    found = layer_kind(module)
    return found and found.name


def layers_of(model: nn.Module) -> list[Layer]:
    """Every compressible layer in the model's order. The first of tied layers holds the tensor."""
    first_names: dict[int, str] = {}
    found: list[Layer] = []
    reads_text = text_reader(model)
    routers, shares = router_names(model), token_shares(model)
    token_share = {
        name: shares[routed_layer.path]
        for name, routed_layer in routed_layers(
            model, [name for name, _ in model.named_modules()] if shares else ()
        ).items()
    }
    for name, module in model.named_modules():
        if kind := layer_kind(module):
            weight = module.weight
            first_name = first_names.setdefault(id(weight), name)
            fields = {
                "tied_to": "" if first_name == name else first_name,
                "dtype": dtype_of(weight),
                "groups": getattr(module, "groups", 1),
            }
            routing = {"routes": name in routers, "reached": token_share.get(name, 1.0)}
            found.append(
                Layer(
                    name,
                    kind.name,
                    shape_of(module),
                    weight.itemsize,
                    reads_text=reads_text(name),
                    **fields,
                    **routing,
                )
            )
    return found


def plain_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """All tensors except layer weights. A tensor shared by several modules, such as a bias, has its
    first name.
    """
    weights, found = {f"{layer.name}.weight" for layer in layers_of(model)}, {}
    for name, value in model.state_dict(keep_vars=True).items():
        if name not in weights:
            found.setdefault(id(value), (name, value.detach()))
    return dict(found.values())


def text_reader(model: nn.Module) -> Callable[[str], bool]:
    """Predicate for names of modules and tensors that take part in reading text: the decoder and
    output layer of a multimodal model, without blocks that text alone does not pass.
    """
    config = getattr(model, "config", None)
    if not hasattr(config, "get_text_config") or config.get_text_config() is config:
        return lambda name: True
    readers = [
        module
        for module in (model.get_decoder(), model.get_output_embeddings())
        if module is not None
    ]
    names = tuple(
        f"{name}."
        for name, module in model.named_modules()
        if any(module is reader for reader in readers)
    )
    passed_by = tuple(
        f"{name}layers.{number}."
        for name in names
        for number in getattr(config.get_text_config(), OF_IMAGES, None) or ()
    )
    return lambda name: f"{name}.".startswith(names) and not f"{name}.".startswith(passed_by)


def dtype_of(weight: torch.Tensor) -> str:
    return str(weight.dtype).removeprefix("torch.")


def blocks_of(layers: list[Layer]) -> list[list[Layer]]:
    """Layers that hold a tensor, by block: they are compressed and written together."""
    blocks = groupby(
        (layer for layer in layers if not layer.tied_to), key=lambda layer: layer.block
    )
    return [list(block) for _, block in blocks]


def shape_of(module: nn.Module) -> tuple[int, ...]:
    shape = tuple(module.weight.shape)
    return shape[::-1] if isinstance(module, Conv1D) else shape


def weight_matrix(module: nn.Module) -> torch.Tensor:
    """Weight of the layer as a matrix with output channels first; a view. (out, in_)"""
    weight = module.weight.detach()
    return weight.T if isinstance(module, Conv1D) else weight.flatten(1)


def selected_layers(layers: list[Layer], selection: Layers) -> list[Layer]:
    """Layers that steps may change: all that are not skipped, except embeddings unless they are
    included. A tied tensor has all its names: skipping one skips all.

    Raises PlainError if a pattern matches no layer, or no layer is left.
    """
    if not layers:
        raise PlainError(
            "This model has no layer that can be compressed here: none of its modules computes a "
            "linear map, a convolution or an "
            "embedding lookup with its own weight. Choose another model."
        )
    for pattern in (*selection.skip, *selection.include):
        if pattern not in Layers().skip and not any(
            fnmatchcase(layer.name, pattern) for layer in layers
        ):
            raise PlainError(
                f"No layer is called {pattern[:80]!r}; this model's are named like "
                f"{layers[-1].name!r}, and globs such as '*.mlp.*' work."
            )
    # comparing all pairs would take minutes for 20,000 experts' layers
    tied = [layer for layer in layers if layer.tied_to]
    left = [
        layer for layer in layers if not layer.tied_to and not skip_reason(layer, tied, selection)
    ]
    if not left:
        raise PlainError(no_layer_message(layers, selection))
    return left


def no_layer_message(layers: list[Layer], selection: Layers) -> str:
    """Explain why no layer is left, and name the options that would change it: those set by the
    user, and layers.include for embeddings.
    """
    untied = [layer for layer in layers if not layer.tied_to]
    embeddings = [
        layer for layer in untied if skip_reason(layer, layers, selection) == EMBEDDING_KEPT
    ]
    skipped = [layer for layer in untied if layer not in embeddings]
    advice = []
    if skipped and selection.skip != Layers().skip:
        advice.append(f"remove a pattern from {SKIP}")
    elif skipped:
        advice.append(
            f"set {SKIP} to an empty list, since it names {', '.join(selection.skip)} by default"
        )
    if embeddings:
        advice.append(f"name an embedding, such as {embeddings[0].name!r}, under {INCLUDE}")
    return f"No layer is left to compress. To compress one, {', or '.join(advice)}."


def skip_reason(layer: Layer, layers: list[Layer], selection: Layers) -> str:
    """Reason why steps may not change a layer that holds a tensor; empty if they may. ``layers``:
    all, or those that are tied.
    """
    if not layer.reads_text:
        return OTHER_PART
    if layer.kind == "embedding" and not is_named(layer, layers, selection.include):
        return EMBEDDING_KEPT
    if layer.routes and not is_named(layer, layers, selection.include):
        return ROUTER_KEPT
    if not is_named(layer, layers, selection.skip):
        return ""
    return TIED_KEPT if layer.kind == "embedding" and selection.skip == Layers().skip else SKIPPED


def included_embeddings(layers: list[Layer], selection: Layers) -> list[Layer]:
    """Embeddings that hold a tensor and match layers.include."""
    tied = [layer for layer in layers if layer.tied_to]
    return [
        layer
        for layer in layers
        if layer.kind == "embedding"
        and not layer.tied_to
        and is_named(layer, tied, selection.include)
    ]


def is_named(layer: Layer, layers: list[Layer], patterns: tuple[str, ...]) -> bool:
    """Return True if a pattern matches a layer that has a tensor, or one tied to it."""
    names = [layer.name, *(other.name for other in layers if other.tied_to == layer.name)]
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)
