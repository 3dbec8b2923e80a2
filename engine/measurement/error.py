"""Errors of one layer's weights and outputs, as table rows."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch

from engine.models.layers import Layer
from engine.results.schema.tables import NAN, HistogramRow, LayerRow, LevelRow
from engine.tensors.weights import StoredWeight

BINS = 96
EXACT = 1 << 24  # torch.histc counts in float32, whose integers are exact up to here


@dataclass(frozen=True)
class LayerComparison:
    """A layer's weight before and after.  Both (out, in_) float32"""

    layer: Layer
    original: torch.Tensor
    compressed: torch.Tensor

    @cached_property
    def weight_error(self) -> torch.Tensor:
        return self.compressed - self.original

    def row(
        self,
        stored: StoredWeight,
        technique: str,
        inputs: tuple[torch.Tensor, torch.Tensor] | None = None,
        note: str = "",
    ) -> LayerRow:
        """Compare the outputs too. ``inputs``: (rows, in_) of the uncompressed model, and those of
        the compressed layer.
        """
        relative = relative_norm(self.weight_error, self.original)
        return LayerRow(
            **layer_columns(self.layer),
            technique=technique,
            size_bytes=stored.nbytes,
            bits_per_weight=stored.nbytes * 8 / self.layer.parameters,
            relative_error=relative,
            output_error=NAN
            if inputs is None
            else output_error(*inputs, self.compressed, self.original),
            sqnr_db=-20 * math.log10(relative) if relative > 0 else math.inf,
            largest_error=max(extreme.abs().item() for extreme in self.weight_error.aminmax()),
            sparsity=1 - self.compressed.count_nonzero().item() / self.layer.parameters,
            note="; ".join(words for words in (note, stored.note()) if words),
        )

    def channels(self) -> pd.DataFrame:
        """ChannelRow of every output channel, as a frame because a model has a million of them."""
        low, high = self.original.aminmax(dim=1)
        relative_errors = self.weight_error.norm(dim=1) / self.original.norm(dim=1).clamp_min(1e-30)
        numbers = {"minimum": low, "maximum": high, "relative_error": relative_errors}
        columns = {name: values.double().cpu().numpy() for name, values in numbers.items()}
        return pd.DataFrame({"layer": self.layer.name, "channel": np.arange(len(low)), **columns})

    def histogram(self) -> Iterator[HistogramRow]:
        low = min(self.original.min().item(), self.compressed.min().item())
        high = max(self.original.max().item(), self.compressed.max().item())
        yield from histogram_rows(self.layer.name, "original", self.original, low, high)
        yield from histogram_rows(self.layer.name, "compressed", self.compressed, low, high)


def unchanged_row(layer: Layer, stored_bytes: int, note: str = "") -> LayerRow:
    """Row of a layer that did not change: dense, or as an earlier run stored it. ``stored_bytes``
    of a tied layer are those of the layer that stores the tensor.
    """
    bits = stored_bytes * 8 / layer.parameters
    sizes = dict.fromkeys(("original_bytes", "size_bytes"), 0 if layer.tied_to else stored_bytes)
    return LayerRow(
        **layer_columns(layer) | sizes,
        technique="",
        bits_per_weight=bits,
        relative_error=NAN,
        note=note,
    )


def layer_columns(layer: Layer) -> dict[str, Any]:
    return {
        "name": layer.name,
        "kind": layer.kind,
        "shape": layer.shape,
        "parameters": layer.parameters,
        "block": layer.block,
        "tied_to": layer.tied_to,
        "original_bytes": 0 if layer.tied_to else layer.original_bytes,
    }


def relative_norm(error: torch.Tensor, original: torch.Tensor) -> float:
    """Norm of the error over norm of the original; 0 where both are zero."""
    return (error.norm() / original.norm().clamp_min(1e-30)).item()


def output_error(
    inputs: torch.Tensor,
    compressed_inputs: torch.Tensor,
    compressed: torch.Tensor,
    original: torch.Tensor,
) -> float:
    """|X W - X^ W^| / |X W| on a sample of the layer's inputs; X^ are the inputs of the compressed
    layer.
    """
    reference_outputs = inputs @ original.T
    return relative_norm(compressed_inputs @ compressed.T - reference_outputs, reference_outputs)


def histogram_rows(
    layer: str, version: str, weight: torch.Tensor, low: float, high: float
) -> list[HistogramRow]:
    """Histogram of a weight's values in BINS bins of equal width from ``low`` to ``high``."""
    low, high = (low, high) if low < high else (low - 0.5, high + 0.5)
    parts = weight.float().flatten().split(EXACT)
    counts = sum(torch.histc(part, BINS, low, high).long() for part in parts).tolist()
    edges = torch.linspace(low, high, BINS + 1).tolist()
    return [
        HistogramRow(layer, version, *bin_)
        for bin_ in zip(edges[:-1], edges[1:], counts, strict=True)
    ]


def level_rows(layer: str, stored: StoredWeight) -> list[LevelRow]:
    values, counts = stored.levels().tolist(), stored.level_counts().tolist()
    return [
        LevelRow(layer, value, count)
        for value, count in zip(values, counts or [NAN] * len(values), strict=True)
    ]
