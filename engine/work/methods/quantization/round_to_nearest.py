"""Round to nearest: the plain baseline every other method is held against."""

from engine.catalog.quantization import RoundToNearest
from engine.work.methods.quantization.grid import stored_grid
from engine.work.methods.stages import compress, predicted_bytes
from engine.work.stored.packing import packed_bytes

compress.register(RoundToNearest, lambda how, weight: stored_grid(weight, how))


@predicted_bytes.register
def _(how: RoundToNearest, shape: tuple[int, int]) -> int:
    out, in_ = shape
    scales = {"tensor": 1, "channel": out, "group": out * -(-in_ // how.group_size)}[how.granularity]
    zeros = packed_bytes(scales, how.bits) if how.scheme == "asymmetric" else 0
    return packed_bytes(out * in_, how.bits) + 2 * scales + zeros
