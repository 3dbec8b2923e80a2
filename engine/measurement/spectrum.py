"""Singular values: how much of a weight matrix a few directions hold."""

import torch

from engine.results.schema.tables import SpectrumRow


def spectrum(layer: str, weight: torch.Tensor) -> list[SpectrumRow]:
    """Every singular value of (out, in_), largest first, with the share of energy (sum of squares)
    up to it.
    """
    values = torch.linalg.svdvals(weight.float())
    energy = values.square().cumsum(0) / values.square().sum().clamp_min(1e-30)
    return [
        SpectrumRow(layer, index + 1, *pair)
        for index, pair in enumerate(zip(values.tolist(), energy.tolist(), strict=True))
    ]
