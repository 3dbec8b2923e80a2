"""Round to nearest: the plain baseline every other method is held against."""

import torch

from engine.catalog.quantization import RoundToNearest
from engine.work.methods.quantization.grid import group_width, stored_grid
from engine.work.methods.stages import blueprint, compress, sketch
from engine.work.stored.packing import packed_bytes
from engine.work.stored.weights import Grid

compress.register(RoundToNearest, lambda how, weight: stored_grid(weight, how))


@blueprint.register
def _(how: RoundToNearest, shape: tuple[int, int]) -> Grid:
    """With float16 scales; weights so small or large that float32 is needed take 2 bytes more a scale."""
    out, in_ = shape
    width = group_width(how, in_)
    scales = (1, 1) if how.granularity == "tensor" else (out, -(-in_ // width))
    zeros = packed_bytes(scales[0] * scales[1], how.bits)
    return Grid(
        shape=shape,
        bits=how.bits,
        group_size=width,
        codes=sketch(packed_bytes(out * in_, how.bits), dtype=torch.uint8),
        scales=sketch(*scales, dtype=torch.float16),
        zeros=sketch(zeros, dtype=torch.uint8) if how.scheme == "asymmetric" else None,
    )
