"""Round to nearest: the plain baseline every other method is held against."""

import torch

from engine.models.layers import Layer
from engine.step.layer_swap import Trial
from engine.techniques.hooks import blueprint, compress, plan, sketch
from engine.techniques.quantization.grid import group_width, shared_rows, stored_grid
from engine.techniques.quantization.rounding.config import RoundToNearest
from engine.tensors.packing import packed_bytes
from engine.tensors.weights import Grid

compress.register(RoundToNearest, lambda how, weight: stored_grid(weight, how))


@plan.register
def plan_round_to_nearest(
    how: RoundToNearest, layers: list[Layer], trial: Trial | None = None
) -> dict[str, RoundToNearest]:
    """Input channels become columns: of a convolution, each is as many as its kernel has places."""
    return {layer.name: in_columns(how, layer) for layer in layers}


def in_columns(how: RoundToNearest, layer: Layer) -> RoundToNearest:
    out, in_ = layer.matrix_shape
    kernel = in_ // layer.shape[1]
    if how.granularity == "input-channel":
        return how.model_copy(
            update={"granularity": "block", "block_rows": out, "block_columns": kernel}
        )
    return (
        how.model_copy(update={"block_columns": how.block_columns * kernel})
        if how.granularity == "block"
        else how
    )


@blueprint.register
def blueprint_round_to_nearest(how: RoundToNearest, shape: tuple[int, int]) -> Grid:
    """Storage plan with float16 scales if they are free; weights so small or large that float32 is
    needed take 2 bytes more per scale.
    """
    out, in_ = shape
    width, rows = group_width(how, in_), shared_rows(how, out)
    scales = (1, 1) if how.granularity == "tensor" else (-(-out // (rows or 1)), -(-in_ // width))
    zeros = packed_bytes(scales[0] * scales[1], how.bits)
    return Grid(
        shape=shape,
        bits=how.bits,
        group_size=width,
        codes=sketch(packed_bytes(out * in_, how.bits), dtype=torch.uint8),
        scales=sketch(
            *scales, dtype=torch.float16 if how.scales == "free" else torch.float8_e8m0fnu
        ),
        zeros=sketch(zeros, dtype=torch.uint8) if how.scheme == "asymmetric" else None,
        rows=rows,
    )
