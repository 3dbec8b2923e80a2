"""Implementation of the example technique."""

import torch

from engine.step.table_builder import TableBuilder
from engine.techniques.hooks import compress, diagnostics, meta_tensor, storage_plan
from engine.tensors.packing import pack_bits, packed_size_bytes
from engine.tensors.weights import IntegerWeight
from example_technique.config import Example
from example_technique.tables import ExampleScaleRow


@compress.register
def compress_example(config: Example, weight: torch.Tensor) -> IntegerWeight:
    """Return the packed weight. weight: (out, in_) float32"""
    middle = 2 ** (config.bits - 1)
    largest = weight.abs().amax(1, keepdim=True)
    scales = (largest / (middle - 1)).half().clamp_min(torch.finfo(torch.float16).tiny)
    codes = (weight / scales.float()).round().clamp(1 - middle, middle - 1) + middle
    return IntegerWeight(
        shape=tuple(weight.shape),
        bits=config.bits,
        group_size=weight.shape[1],
        codes=pack_bits(codes.to(torch.uint8), config.bits),
        scales=scales,
    )


@storage_plan.register
def storage_plan_example(config: Example, shape: tuple[int, int]) -> IntegerWeight:
    """Return the result of ``compress`` without values, for forecasts."""
    return IntegerWeight(
        shape=shape,
        bits=config.bits,
        group_size=shape[1],
        codes=meta_tensor(packed_size_bytes(shape[0] * shape[1], config.bits), dtype=torch.uint8),
        scales=meta_tensor(shape[0], 1, dtype=torch.float16),
    )


@diagnostics.register
def diagnostics_example(
    config: Example, layer: str, weight: torch.Tensor, stored: IntegerWeight, seen: object
) -> TableBuilder:
    """Return the scales of one layer's rows as rows of the technique's own table."""
    scales = stored.scales.flatten().tolist()
    return TableBuilder(
        example_scales=[ExampleScaleRow(layer, row, scale) for row, scale in enumerate(scales)]
    )
