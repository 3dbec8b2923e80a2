"""How each technique is done, one method per file. Importing this package registers them all with the stages."""

from engine.work.methods.quantization import (
    activations,
    awq,
    bitsandbytes,
    codebook,
    floats,
    gptq,
    hqq,
    llm_int8,
    mixed,
    round_to_nearest,
    salience,
    tables,
)
from engine.work.methods.stages import blueprint, compress, plan, predicted_bytes, scales_for

__all__ = [
    "activations", "awq", "bitsandbytes", "blueprint", "codebook", "compress", "floats", "gptq", "hqq", "llm_int8", "mixed", "plan",
    "predicted_bytes", "round_to_nearest", "salience", "scales_for", "tables",
]  # fmt: skip
