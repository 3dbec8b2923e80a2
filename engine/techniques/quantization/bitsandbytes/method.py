"""NF4, FP4 and INT8 with the bitsandbytes library, which computes codes and absmax."""

import torch

from engine.techniques.hooks import compress, meta_tensor, storage_plan
from engine.techniques.quantization.bitsandbytes.config import BitsAndBytes
from engine.techniques.quantization.grid import ROWS_AT_ONCE
from engine.tensors.blockwise import NESTED_BLOCK, FourBit, RowInt8
from engine.tensors.weights import StoredWeight


@compress.register
def compress_bitsandbytes(config: BitsAndBytes, weight: torch.Tensor) -> StoredWeight:
    return row_int8_weight(weight) if config.format == "int8" else four_bit_weight(weight, config)


def four_bit_weight(weight: torch.Tensor, config: BitsAndBytes) -> FourBit:
    from bitsandbytes.functional import quantize_4bit

    codes, state = quantize_4bit(
        weight.contiguous(),
        blocksize=config.block_size,
        quant_type=config.format,
        compress_statistics=config.double_quantization,
    )
    nested = (
        {"nested_absmax": state.state2.absmax, "offset": state.offset.reshape(1)}
        if config.double_quantization
        else {}
    )
    return FourBit(
        shape=tuple(weight.shape),
        format=config.format,
        block_size=config.block_size,
        codes=codes.flatten().view(torch.uint8),
        absmax=state.absmax,
        **nested,
    )


def row_int8_weight(weight: torch.Tensor) -> RowInt8:
    codes, absmax = zip(*(row_codes(rows) for rows in weight.split(ROWS_AT_ONCE)), strict=True)
    return RowInt8(shape=tuple(weight.shape), codes=torch.cat(codes), absmax=torch.cat(absmax))


def row_codes(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    from bitsandbytes.functional import int8_vectorwise_quant

    # the library takes float16 only; scaled by powers of two, rows of very small or large weights
    # fit into it
    exponent = weight.abs().amax(1).frexp().exponent
    codes, absmax, _ = int8_vectorwise_quant(weight.ldexp(-exponent[:, None]).half())
    return codes, absmax.float().ldexp(exponent)


@storage_plan.register
def storage_plan_bitsandbytes(config: BitsAndBytes, shape: tuple[int, int]) -> StoredWeight:
    out, in_ = shape
    if config.format == "int8":
        return RowInt8(
            shape, codes=meta_tensor(out, in_, dtype=torch.int8), absmax=meta_tensor(out)
        )
    blocks = -(-out * in_ // config.block_size)
    codes = meta_tensor(-(-out * in_ // 2), dtype=torch.uint8)
    if not config.double_quantization:
        return FourBit(shape, config.format, config.block_size, codes, meta_tensor(blocks))
    nested = {"nested_absmax": meta_tensor(-(-blocks // NESTED_BLOCK)), "offset": meta_tensor(1)}
    return FourBit(
        shape,
        config.format,
        config.block_size,
        codes,
        meta_tensor(blocks, dtype=torch.uint8),
        **nested,
    )
