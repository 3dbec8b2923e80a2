"""Implementation of the example technique."""

import torch

from engine.step.table_builder import TableBuilder
from engine.techniques.hooks import blueprint, compress, portrait, sketch
from engine.tensors.packing import packed, packed_bytes
from engine.tensors.weights import Grid
from example_technique.config import Example
from example_technique.tables import ExampleScaleRow


@compress.register
def compress_example(config: Example, weight: torch.Tensor) -> Grid:
    """Return the packed weight. weight: (out, in_) float32"""
    middle = 2 ** (config.bits - 1)
    largest = weight.abs().amax(1, keepdim=True)
    scales = (largest / (middle - 1)).half().clamp_min(torch.finfo(torch.float16).tiny)
    codes = (weight / scales.float()).round().clamp(1 - middle, middle - 1) + middle
    return Grid(
        shape=tuple(weight.shape),
        bits=config.bits,
        group_size=weight.shape[1],
        codes=packed(codes.to(torch.uint8), config.bits),
        scales=scales,
    )


@blueprint.register
def blueprint_example(config: Example, shape: tuple[int, int]) -> Grid:
    """Return the result of ``compress`` without values, for forecasts."""
    return Grid(
        shape=shape,
        bits=config.bits,
        group_size=shape[1],
        codes=sketch(packed_bytes(shape[0] * shape[1], config.bits), dtype=torch.uint8),
        scales=sketch(shape[0], 1, dtype=torch.float16),
    )


@portrait.register
def portrait_example(
    config: Example, layer: str, weight: torch.Tensor, stored: Grid, seen: object
) -> TableBuilder:
    """Return the scales of one layer's rows as rows of the technique's own table."""
    scales = stored.scales.flatten().tolist()
    return TableBuilder(
        example_scales=[ExampleScaleRow(layer, row, scale) for row, scale in enumerate(scales)]
    )
