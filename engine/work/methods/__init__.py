"""How each technique is done, one method per file. Importing this package registers them all with the stages."""

from engine.work.methods.quantization import activations, awq, bitsandbytes, gptq, llm_int8, round_to_nearest
from engine.work.methods.stages import blueprint, compress, plan, predicted_bytes, scales_for

__all__ = [
    "activations", "awq", "bitsandbytes", "blueprint", "compress", "gptq", "llm_int8", "plan", "predicted_bytes", "round_to_nearest", "scales_for",
]  # fmt: skip
