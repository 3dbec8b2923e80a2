"""Weights in shorter floating-point formats."""

import torch

from engine.errors import PlainError
from engine.models.layers import SKIP
from engine.techniques.hooks import compress, meta_tensor, storage_plan
from engine.techniques.quantization.fixed_levels.method import mxfp4_plan, mxfp4_weight
from engine.techniques.quantization.float_formats.config import FloatingPoint
from engine.tensors.floats import Float8
from engine.tensors.weights import DenseWeight, StoredWeight

FP8 = {"fp8-e4m3": torch.float8_e4m3fn, "fp8-e5m2": torch.float8_e5m2}


@compress.register
def compress_floating_point(config: FloatingPoint, weight: torch.Tensor) -> StoredWeight:
    if config.format == "mxfp4":
        return mxfp4_weight(weight)
    return (
        fp8_weight(weight, config)
        if config.format in FP8
        else cast_weight(weight, getattr(torch, config.format))
    )


def fp8_weight(weight: torch.Tensor, config: FloatingPoint) -> Float8:
    """Cast to the nearest number, ties to even, saturating at the largest one."""
    dtype = FP8[config.format]
    largest = torch.finfo(dtype).max
    scales = None if config.scale == "none" else scaled_magnitude(weight, config) / largest
    relative = weight if scales is None else weight / scales
    return Float8(tuple(weight.shape), relative.clamp(-largest, largest).to(dtype), scales)


def scaled_magnitude(weight: torch.Tensor, config: FloatingPoint) -> torch.Tensor:
    """Largest magnitude of all weights or of each row, (1, 1) or (out, 1); 1 if all are zero."""
    largest = (
        weight.abs().amax(1, keepdim=True)
        if config.scale == "channel"
        else weight.abs().amax().view(1, 1)
    )
    return torch.where(largest > 0, largest, 1.0).clamp_min(1e-30)


def cast_weight(weight: torch.Tensor, dtype: torch.dtype) -> DenseWeight:
    """Cast a weight to a floating-point format.

    Raises PlainError if a weight exceeds the range of float16.
    """
    cast = weight.to(dtype)
    if cast.isinf().any():
        widest = weight.abs().max().item()
        raise PlainError(
            f"A weight of {widest:.3g} is beyond the largest float16, 65504; choose "
            f"bfloat16, or add the layer to {SKIP}."
        )
    return DenseWeight(tuple(weight.shape), cast)


@storage_plan.register
def storage_plan_floating_point(config: FloatingPoint, shape: tuple[int, int]) -> StoredWeight:
    if config.format == "mxfp4":
        return mxfp4_plan(shape)
    if config.format not in FP8:
        return DenseWeight(shape, meta_tensor(*shape, dtype=getattr(torch, config.format)))
    scales = {"none": None, "tensor": meta_tensor(1, 1), "channel": meta_tensor(shape[0], 1)}[
        config.scale
    ]
    return Float8(shape, meta_tensor(*shape, dtype=FP8[config.format]), scales)
