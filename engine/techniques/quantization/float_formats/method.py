"""Weights as shorter floating-point numbers."""

import torch

from engine.errors import PlainError
from engine.techniques.hooks import blueprint, compress, sketch
from engine.techniques.quantization.fixed_levels.method import mxfp4, mxfp4_sketch
from engine.techniques.quantization.float_formats.config import FloatingPoint
from engine.tensors.floats import Float8
from engine.tensors.weights import Dense, Stored

FP8 = {"fp8-e4m3": torch.float8_e4m3fn, "fp8-e5m2": torch.float8_e5m2}


@compress.register
def compress_floating_point(how: FloatingPoint, weight: torch.Tensor) -> Stored:
    if how.format == "mxfp4":
        return mxfp4(weight)
    return fp8(weight, how) if how.format in FP8 else precision(weight, getattr(torch, how.format))


def fp8(weight: torch.Tensor, how: FloatingPoint) -> Float8:
    """Cast to the nearest number, ties to even; beyond the largest one it is the largest."""
    dtype = FP8[how.format]
    largest = torch.finfo(dtype).max
    scales = None if how.scale == "none" else widest(weight, how) / largest
    relative = weight if scales is None else weight / scales
    return Float8(tuple(weight.shape), relative.clamp(-largest, largest).to(dtype), scales)


def widest(weight: torch.Tensor, how: FloatingPoint) -> torch.Tensor:
    """Largest magnitude of all weights or of each row, (1, 1) or (out, 1); 1 if all are zero."""
    largest = (
        weight.abs().amax(1, keepdim=True)
        if how.scale == "channel"
        else weight.abs().amax().view(1, 1)
    )
    return torch.where(largest > 0, largest, 1.0).clamp_min(1e-30)


def precision(weight: torch.Tensor, dtype: torch.dtype) -> Dense:
    """Raises PlainError where float16 is too small for a weight."""
    cast = weight.to(dtype)
    if cast.isinf().any():
        widest = weight.abs().max().item()
        raise PlainError(
            f"A weight of {widest:.3g} is beyond the largest float16, 65504; choose "
            "bfloat16, or skip the layer under layers.skip."
        )
    return Dense(tuple(weight.shape), cast)


@blueprint.register
def blueprint_floating_point(how: FloatingPoint, shape: tuple[int, int]) -> Stored:
    if how.format == "mxfp4":
        return mxfp4_sketch(shape)
    if how.format not in FP8:
        return Dense(shape, sketch(*shape, dtype=getattr(torch, how.format)))
    scales = {"none": None, "tensor": sketch(1, 1), "channel": sketch(shape[0], 1)}[how.scale]
    return Float8(shape, sketch(*shape, dtype=FP8[how.format]), scales)
