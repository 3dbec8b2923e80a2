"""Input statistics of one layer on the calibration data. Layers with the same input share them."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from engine.errors import PlainError, option_name
from engine.models.packed_modules import (
    Unpacking,
    UnpackingConv2d,
    UnpackingEmbedding,
    UnpackingLinear,
)
from engine.recipe import Layers

PIECES = 8  # a Gram matrix is symmetric, so 36 of 8 x 8 tiles are computed
NARROWEST = 96  # columns of a tile; narrower products are slow
VALUES_KEPT = 1 << 18


@dataclass
class InputStats:
    """Sums over all input vectors of a layer. ``width`` is that of one vector (a convolution's
    patch: in x height x width).
    """

    width: int
    device: torch.device
    wants_gram: bool = True
    count: int = 0
    gram: torch.Tensor = field(init=False)  # (width, width) float32, sum of x x^T
    abs_sum: torch.Tensor = field(init=False)  # (width,) float32
    square_sum: torch.Tensor = field(init=False)
    abs_max: torch.Tensor = field(init=False)
    # sample of each batch, (vectors, width) float32
    vectors: list[torch.Tensor] = field(default_factory=list)
    # of each channel in each batch, (width,) float32
    lows: list[torch.Tensor] = field(default_factory=list)
    highs: list[torch.Tensor] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    # adjacent positions of a vector that belong to one input channel, for convolutions
    # kernel
    area: int = 1
    # number of replacement vectors for an expert's missing tokens, part of ``count``
    missing: int = 0
    # results that methods derive from the Gram matrix, cached for layers that share it
    factors: dict[tuple[Any, ...], Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.abs_sum, self.square_sum, self.abs_max = (
            torch.zeros(self.width, device=self.device) for _ in range(3)
        )
        self.gram = (
            torch.zeros(self.width, self.width, device=self.device)
            if self.wants_gram
            else torch.empty(0, device=self.device)
        )

    def add(self, rows: torch.Tensor) -> None:
        """Add a batch of input vectors, (vectors, width) in any floating-point format. An empty
        batch is allowed, such as for an adapter that no input selects.
        """
        if not len(rows):
            return
        size = rows.abs()
        self.count += len(rows)
        self.abs_sum += size.sum(0, dtype=torch.float32)
        self.square_sum += torch.linalg.vector_norm(rows, dim=0, dtype=torch.float32).square_()
        self.abs_max = torch.maximum(self.abs_max, size.amax(0).float())
        sample = rows[:: max(1, len(rows) * self.width * 16 // VALUES_KEPT)]
        # a view would hold on to the whole batch
        self.vectors.append(sample.to(torch.float32, copy=True))
        if self.wants_gram:
            add_gram(self.gram, rows)
        else:
            self.lows.append(rows.amin(0).float())
            self.highs.append(rows.amax(0).float())

    @property
    def abs_mean(self) -> torch.Tensor:
        """Mean magnitude of each input channel.  (width,)"""
        return self.abs_sum / max(1, self.count)

    @property
    def rms(self) -> torch.Tensor:
        """Root mean square of each input channel.  (width,)"""
        return (self.square_sum / max(1, self.count)).sqrt()

    @property
    def extremes(self) -> list[tuple[float, float]]:
        """Lowest and highest value of each batch."""
        return [
            (low.min().item(), high.max().item())
            for low, high in zip(self.lows, self.highs, strict=True)
        ]

    def sample_vectors(self, count: int = 256) -> torch.Tensor:
        """Sample of up to ``count`` input vectors, evenly spaced over the batches.  (vectors,
        width) float32
        """
        vectors = torch.cat(self.vectors)
        return vectors[:: -(-len(vectors) // count)]

    def sample(self) -> torch.Tensor:
        """Sample of up to VALUES_KEPT values, evenly spaced over the batches, on the CPU."""
        flat = torch.cat(self.vectors).flatten()
        return flat[:: -(-len(flat) // VALUES_KEPT)].cpu()

    def divided_by(self, scales: torch.Tensor) -> "InputStats":
        """Statistics of the layer's inputs divided by ``scales``, (width,)."""
        other = InputStats(
            self.width,
            self.device,
            self.wants_gram,
            self.count,
            warnings=self.warnings,
            area=self.area,
            missing=self.missing,
        )
        other.abs_sum, other.square_sum, other.abs_max = (
            self.abs_sum / scales,
            self.square_sum / scales.square(),
            self.abs_max / scales,
        )
        other.gram = self.gram / scales / scales[:, None] if self.wants_gram else self.gram
        other.vectors, other.lows, other.highs = (
            [vector / scales for vector in column]
            for column in (self.vectors, self.lows, self.highs)
        )
        return other

    def check_usable(self, layer: str) -> None:
        """Check that the layer's inputs were observed and are finite.

        Raises PlainError if there was no input, or one was not finite.
        """
        if not self.count:
            raise PlainError(
                f"No calibration data reached {layer}; add it to "
                f"{option_name(Layers, 'skip')}, or give other calibration data."
            )
        if not self.abs_max.isfinite().all():
            raise PlainError(
                f"The inputs of {layer} become NaN or infinite on the calibration data; "
                "compute in float32, or give other data."
            )


def merged_stats(parts: Iterable[InputStats]) -> InputStats:
    """Merge the input statistics of layers with the same width, such as experts that share a scale.
    Replacements for missing tokens count only if there are no others.
    """
    parts = list({id(part): part for part in parts}.values())
    parts = [part for part in parts if part.missing < part.count] or parts
    if len(parts) == 1:
        return parts[0]
    merged = InputStats(parts[0].width, parts[0].device, parts[0].wants_gram, area=parts[0].area)
    for part in parts:
        merged.count += part.count
        merged.abs_sum += part.abs_sum
        merged.square_sum += part.square_sum
        merged.abs_max = torch.maximum(merged.abs_max, part.abs_max)
        merged.gram += part.gram
        for of_merged, of_part in (
            (merged.vectors, part.vectors),
            (merged.lows, part.lows),
            (merged.highs, part.highs),
        ):
            of_merged.extend(of_part)
    return merged


def add_gram(total: torch.Tensor, rows: torch.Tensor) -> None:
    """``total += rows^T rows``, computed in tiles on and below the diagonal and then mirrored. Sums
    are float32 for any format of the rows.
    """
    pieces = max(1, min(PIECES, len(total) // NARROWEST))
    edges = [len(total) * piece // pieces for piece in range(pieces + 1)]
    with reduced_precision_products(rows.dtype == torch.bfloat16):
        rows = rows.to(total.dtype)
        for begin, end in pairwise(edges):
            total[begin:end, :end].addmm_(rows[:, begin:end].T, rows[:, :end])
            total[:begin, begin:end] = total[begin:end, :begin].T


@contextmanager
def reduced_precision_products(exact: bool) -> Iterator[None]:
    """Let the processor multiply float32 values that are exact in bfloat16 as bfloat16. Sums stay
    float32.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium" if exact else before)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def kernel_area(module: Unpacking) -> int:
    """Columns of its weight that belong to one input channel."""
    return (
        module.image_kernel[2] * module.image_kernel[3]
        if isinstance(module, UnpackingConv2d)
        else 1
    )


def input_vectors(module: Unpacking, inputs: torch.Tensor) -> torch.Tensor:
    """A layer's input as vectors; a convolution's are its patches, (vectors, in x height x
    width).
    """
    return module.patches(inputs) if isinstance(module, UnpackingConv2d) else inputs.flatten(0, -2)


def input_layout(module: Unpacking) -> tuple[Any, ...] | None:
    """Key for how a layer forms vectors from its input; layers with equal keys have equal
    statistics for the same input.
    """
    if not isinstance(module, UnpackingConv2d):
        return None
    return (
        module.image_kernel[2:],
        module.margins,
        module.padding_mode,
        *sorted(module.config.items()),
    )


def input_reader(model: nn.Module, name: str) -> nn.Module:
    """Module that multiplies inputs by a layer's weight: the layer itself, or for an embedding the
    output layer tied to it.
    """
    module = model.get_submodule(name)
    if not isinstance(module, UnpackingEmbedding):
        return module
    return next(
        (
            other
            for other in model.modules()
            if isinstance(other, UnpackingLinear) and other.stored is module.stored
        ),
        module,
    )


def has_observable_inputs(module: nn.Module) -> bool:
    """Return True if the layer multiplies its weight with observable vectors: no embedding, no
    grouped convolution.
    """
    return isinstance(module, UnpackingLinear) or (
        isinstance(module, UnpackingConv2d) and module.config["groups"] == 1
    )
