"""How each technique is done, one method per file. Importing this package registers them all with the stages."""

from engine.work.methods.quantization import bitsandbytes, round_to_nearest
from engine.work.methods.stages import blueprint, compress, plan, predicted_bytes

__all__ = ["bitsandbytes", "blueprint", "compress", "plan", "predicted_bytes", "round_to_nearest"]
