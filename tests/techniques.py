"""Settings that between them take every way through the techniques that need no data."""

from engine.catalog.hqq import HQQ
from engine.catalog.quantization import BitsAndBytes, RoundToNearest
from engine.catalog.technique import Technique

ROUNDING: list[RoundToNearest] = [
    RoundToNearest(bits=bits, granularity=granularity, group_size=size, scheme=scheme)
    for bits in (2, 3, 4, 8)
    for granularity, size in (("tensor", 32), ("channel", 32), ("group", 8), ("group", 32), ("group", 4096))
    for scheme in ("symmetric", "asymmetric")
]
RANGES: list[RoundToNearest] = [
    RoundToNearest(bits=bits, scheme=scheme, range=reach, percentile=95)
    for bits in (2, 4)
    for scheme in ("symmetric", "asymmetric")
    for reach in ("percentile", "mse")
]
NARROW: list[RoundToNearest] = [RoundToNearest(bits=bits, grid="narrow") for bits in (2, 4, 8)]
FOUR_BIT: list[BitsAndBytes] = [
    BitsAndBytes(format=format, block_size=size, double_quantization=double)
    for format in ("nf4", "fp4")
    for size in (64, 256)
    for double in (False, True)
]
HALF_QUADRATIC: list[HQQ] = [HQQ(bits=bits, group_size=size, axis=axis) for bits in (2, 4, 8) for size in (0, 8, 64) for axis in ("row", "column")]
INT8 = BitsAndBytes(format="int8")
EVERY: list[Technique] = [*ROUNDING, *RANGES, *NARROW, *FOUR_BIT, *HALF_QUADRATIC, INT8]


def named(how: Technique) -> str:
    """A test's id."""
    return "-".join(str(value) for value in how.model_dump().values())
