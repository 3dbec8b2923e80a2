"""Round to nearest, the baseline of all other methods."""

import torch

from engine.models.layers import Layer
from engine.step.layer_swap import LayerSwap
from engine.techniques.hooks import compress, meta_tensor, plan, storage_plan
from engine.techniques.quantization.grid import group_width, round_to_grid, shared_rows
from engine.techniques.quantization.rounding.config import RoundToNearest
from engine.tensors.packing import packed_size_bytes
from engine.tensors.weights import IntegerWeight

compress.register(RoundToNearest, lambda config, weight: round_to_grid(weight, config))


@plan.register
def plan_round_to_nearest(
    config: RoundToNearest, layers: list[Layer], layer_swap: LayerSwap | None = None
) -> dict[str, RoundToNearest]:
    """Columns of input channels; for a convolution, each channel has one per position of the
    kernel.
    """
    return {layer.name: layer_config(config, layer) for layer in layers}


def layer_config(config: RoundToNearest, layer: Layer) -> RoundToNearest:
    out, in_ = layer.matrix_shape
    kernel = in_ // layer.shape[1]
    if config.granularity == "input-channel":
        return config.model_copy(
            update={"granularity": "block", "block_rows": out, "block_columns": kernel}
        )
    return (
        config.model_copy(update={"block_columns": config.block_columns * kernel})
        if config.granularity == "block"
        else config
    )


@storage_plan.register
def storage_plan_round_to_nearest(config: RoundToNearest, shape: tuple[int, int]) -> IntegerWeight:
    """Storage plan with float16 scales if they are free; weights so small or large that float32 is
    needed take 2 bytes more per scale.
    """
    out, in_ = shape
    width, rows = group_width(config, in_), shared_rows(config, out)
    scales = (
        (1, 1) if config.granularity == "tensor" else (-(-out // (rows or 1)), -(-in_ // width))
    )
    zeros = packed_size_bytes(scales[0] * scales[1], config.bits)
    return IntegerWeight(
        shape=shape,
        bits=config.bits,
        group_size=width,
        codes=meta_tensor(packed_size_bytes(out * in_, config.bits), dtype=torch.uint8),
        scales=meta_tensor(
            *scales, dtype=torch.float16 if config.scales == "free" else torch.float8_e8m0fnu
        ),
        zeros=meta_tensor(zeros, dtype=torch.uint8) if config.scheme == "asymmetric" else None,
        rows=rows,
    )
