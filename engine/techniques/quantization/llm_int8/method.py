"""LLM.int8() (Dettmers et al. 2022, arXiv:2208.07339)."""

import torch

from engine.calibration import InputStats
from engine.techniques.hooks import compress, meta_tensor, storage_plan
from engine.techniques.quantization.llm_int8.config import LLMInt8
from engine.tensors.blockwise import RowInt8
from engine.tensors.outliers import MixedInt8, outlier_fields


@compress.register
def compress_llm_int8(config: LLMInt8, weight: torch.Tensor, stats: InputStats) -> MixedInt8:
    columns = outlier_column_indices(config, stats)
    regular = weight.clone()
    regular[:, columns] = 0
    return MixedInt8(
        tuple(weight.shape),
        rows_in_int8(regular),
        **outlier_fields(weight, columns),
        threshold=config.threshold,
        area=stats.area,
    )


def outlier_column_indices(config: LLMInt8, stats: InputStats) -> torch.Tensor:
    """Columns of input channels that reach the threshold anywhere; for a convolution, all columns
    of the channel's kernel.
    """
    largest = stats.abs_max.view(-1, stats.area).amax(1)
    return (largest >= config.threshold).repeat_interleave(stats.area).nonzero().squeeze(1)


def rows_in_int8(weight: torch.Tensor) -> RowInt8:
    """One scale per row: the largest weight becomes 127."""
    largest = weight.abs().amax(1)
    codes = weight.mul((127 / largest.clamp_min(1e-30))[:, None]).round_().to(torch.int8)
    return RowInt8(tuple(weight.shape), codes, largest)


@storage_plan.register
def storage_plan_llm_int8(config: LLMInt8, shape: tuple[int, int]) -> MixedInt8:
    """Storage plan without outliers, whose number depends on the data."""
    plain = RowInt8(shape, meta_tensor(*shape, dtype=torch.int8), meta_tensor(shape[0]))
    return MixedInt8(
        shape,
        plain,
        meta_tensor(0, dtype=torch.int32),
        meta_tensor(shape[0], 0, dtype=torch.float16),
        threshold=config.threshold,
    )
