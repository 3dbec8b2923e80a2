"""LLM.int8() (Dettmers et al. 2022, arXiv:2208.07339)."""

import torch

from engine.calibration import Seen
from engine.techniques.hooks import blueprint, compress, sketch
from engine.techniques.quantization.llm_int8.config import LLMInt8
from engine.tensors.blockwise import RowInt8
from engine.tensors.outliers import MixedInt8, columns_of


@compress.register
def compress_llm_int8(how: LLMInt8, weight: torch.Tensor, seen: Seen) -> MixedInt8:
    columns = outliers(how, seen)
    rest = weight.clone()
    rest[:, columns] = 0
    return MixedInt8(
        tuple(weight.shape),
        rows_in_int8(rest),
        **columns_of(weight, columns),
        threshold=how.threshold,
        area=seen.area,
    )


def outliers(how: LLMInt8, seen: Seen) -> torch.Tensor:
    """Columns behind input channels that reach the threshold anywhere; of a convolution, all of the
    channel's kernel.
    """
    largest = seen.abs_max.view(-1, seen.area).amax(1)
    return (largest >= how.threshold).repeat_interleave(seen.area).nonzero().squeeze(1)


def rows_in_int8(weight: torch.Tensor) -> RowInt8:
    """One scale a row: the largest weight becomes 127."""
    largest = weight.abs().amax(1)
    codes = weight.mul((127 / largest.clamp_min(1e-30))[:, None]).round_().to(torch.int8)
    return RowInt8(tuple(weight.shape), codes, largest)


@blueprint.register
def blueprint_llm_int8(how: LLMInt8, shape: tuple[int, int]) -> MixedInt8:
    """Without outliers: how many there are, only data can tell."""
    plain = RowInt8(shape, sketch(*shape, dtype=torch.int8), sketch(shape[0]))
    return MixedInt8(
        shape,
        plain,
        sketch(0, dtype=torch.int32),
        sketch(shape[0], 0, dtype=torch.float16),
        threshold=how.threshold,
    )
