"""Settings that between them take every way through the techniques that need no data."""

from engine.config.technique import Technique
from engine.techniques.quantization.bitsandbytes.config import BitsAndBytes
from engine.techniques.quantization.codebook.config import Codebook
from engine.techniques.quantization.fixed_levels.config import Logarithmic, Ternary
from engine.techniques.quantization.float_formats.config import FloatingPoint
from engine.techniques.quantization.hqq.config import HQQ
from engine.techniques.quantization.rounding.config import RoundToNearest

ROUNDING: list[RoundToNearest] = [
    RoundToNearest(
        bits=bits, granularity=granularity, group_size=size, scheme=scheme, range="absmax"
    )
    for bits in (2, 3, 4, 8)
    for granularity, size in (
        ("tensor", 32),
        ("channel", 32),
        ("group", 8),
        ("group", 32),
        ("group", 4096),
    )
    for scheme in ("symmetric", "asymmetric")
]
RANGES: list[RoundToNearest] = [
    RoundToNearest(bits=bits, scheme=scheme, range=reach, percentile=95)
    for bits in (2, 4)
    for scheme in ("symmetric", "asymmetric")
    for reach in ("percentile", "mse", "rms", "entropy")
]
BLOCKS: list[RoundToNearest] = [
    *(
        RoundToNearest(granularity="block", block_rows=rows, block_columns=columns, scheme=scheme)
        for rows, columns in ((1, 8), (2, 5), (4096, 3))
        for scheme in ("symmetric", "asymmetric")
    ),
    RoundToNearest(bits=3, granularity="input-channel"),
]
FIXED_POINT: list[RoundToNearest] = [
    RoundToNearest(bits=bits, scheme=scheme, range=reach, scales="power-of-two")
    for bits in (2, 4, 8)
    for scheme, reach in (("symmetric", "absmax"), ("asymmetric", "mse"))
]
NARROW: list[RoundToNearest] = [
    RoundToNearest(bits=bits, grid="narrow", range="absmax") for bits in (2, 4, 8)
]
FOUR_BIT: list[BitsAndBytes] = [
    BitsAndBytes(format=format, block_size=size, double_quantization=double)
    for format in ("nf4", "fp4")
    for size in (64, 256)
    for double in (False, True)
]
HALF_QUADRATIC: list[HQQ] = [
    HQQ(bits=bits, group_size=size, axis=axis)
    for bits in (2, 4, 8)
    for size in (0, 8, 64)
    for axis in ("row", "column")
]
INT8 = BitsAndBytes(format="int8")
SHARING = (("tensor", 32), ("channel", 32), ("group", 8), ("group", 32), ("group", 4096))
TERNARY = [
    Ternary(values=values, granularity=granularity, group_size=size)
    for values in ("ternary", "binary")
    for granularity, size in SHARING
]
LOGARITHMIC = [
    *(
        Logarithmic(bits=bits, granularity=granularity, group_size=size)
        for bits in (2, 4)
        for granularity, size in SHARING
    ),
    *(
        Logarithmic(bits=bits, steps_per_octave=steps, scales=scales)
        for bits in (3, 8)
        for steps in (1, 2, 4)
        for scales in ("power-of-two", "free")
    ),
]
FLOATS = [
    *(
        FloatingPoint(format=format, scale=scale)
        for format in ("fp8-e4m3", "fp8-e5m2")
        for scale in ("none", "tensor", "channel")
    ),
    FloatingPoint(format="mxfp4"),
]
# float32 is the weight itself
PRECISIONS = [FloatingPoint(format=format) for format in ("bfloat16", "float16", "float64")]
CODEBOOKS = [
    Codebook(bits=bits, rows=rows, start=start)
    for bits in (1, 3, 8)
    for rows in (0, 2)
    for start in ("best", "density", "random")
]
HUFFMAN = [
    Codebook(bits=bits, rows=rows, coding="huffman") for bits in (1, 4, 8) for rows in (0, 2)
]
FORMATS: list[Technique] = [*TERNARY, *LOGARITHMIC, *FLOATS, *PRECISIONS, *CODEBOOKS]
EVERY: list[Technique] = [
    *ROUNDING,
    *RANGES,
    *NARROW,
    *BLOCKS,
    *FIXED_POINT,
    *FOUR_BIT,
    *HALF_QUADRATIC,
    INT8,
    *FORMATS,
]  # but for HUFFMAN, whose size depends on the weights


def technique_id(config: Technique) -> str:
    """A test's id."""
    return "-".join(str(value) for value in config.model_dump().values())
