"""NF4, FP4 and INT8 through the bitsandbytes library: codes and absmax are the library's own."""

import torch

from engine.techniques.hooks import blueprint, compress, sketch
from engine.techniques.quantization.bitsandbytes.config import BitsAndBytes
from engine.techniques.quantization.grid import ROWS_AT_ONCE
from engine.tensors.blockwise import NESTED_BLOCK, FourBit, RowInt8
from engine.tensors.weights import Stored


@compress.register
def compress_bitsandbytes(how: BitsAndBytes, weight: torch.Tensor) -> Stored:
    return row_int8(weight) if how.format == "int8" else four_bit(weight, how)


def four_bit(weight: torch.Tensor, how: BitsAndBytes) -> FourBit:
    from bitsandbytes.functional import quantize_4bit

    codes, state = quantize_4bit(
        weight.contiguous(),
        blocksize=how.block_size,
        quant_type=how.format,
        compress_statistics=how.double_quantization,
    )
    nested = (
        {"nested_absmax": state.state2.absmax, "offset": state.offset.reshape(1)}
        if how.double_quantization
        else {}
    )
    return FourBit(
        shape=tuple(weight.shape),
        format=how.format,
        block_size=how.block_size,
        codes=codes.flatten().view(torch.uint8),
        absmax=state.absmax,
        **nested,
    )


def row_int8(weight: torch.Tensor) -> RowInt8:
    codes, absmax = zip(*(coded_rows(rows) for rows in weight.split(ROWS_AT_ONCE)), strict=True)
    return RowInt8(shape=tuple(weight.shape), codes=torch.cat(codes), absmax=torch.cat(absmax))


def coded_rows(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    from bitsandbytes.functional import int8_vectorwise_quant

    # the library takes float16 only; scaled by powers of two, rows of very small or large weights
    # fit into it
    exponent = weight.abs().amax(1).frexp().exponent
    codes, absmax, _ = int8_vectorwise_quant(weight.ldexp(-exponent[:, None]).half())
    return codes, absmax.float().ldexp(exponent)


@blueprint.register
def blueprint_bitsandbytes(how: BitsAndBytes, shape: tuple[int, int]) -> Stored:
    out, in_ = shape
    if how.format == "int8":
        return RowInt8(shape, codes=sketch(out, in_, dtype=torch.int8), absmax=sketch(out))
    blocks = -(-out * in_ // how.block_size)
    codes = sketch(-(-out * in_ // 2), dtype=torch.uint8)
    if not how.double_quantization:
        return FourBit(shape, how.format, how.block_size, codes, sketch(blocks))
    nested = {"nested_absmax": sketch(-(-blocks // NESTED_BLOCK)), "offset": sketch(1)}
    return FourBit(
        shape, how.format, how.block_size, codes, sketch(blocks, dtype=torch.uint8), **nested
    )
