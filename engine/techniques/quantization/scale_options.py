"""Options of formats whose weights share scales."""

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator

from engine.config.technique import Family, Technique, WeightState, option

Range = Annotated[
    Literal["absmax", "percentile", "mse", "rms", "entropy"],
    # the same range if the grid has a zero point
    BeforeValidator(lambda value: "absmax" if value == "min-max" else value),
]
Granularity = Literal["tensor", "channel", "group"]


class UniformGrid(Technique):
    """Options of a uniform grid."""

    family: ClassVar[Family] = "quantization"
    label_name: ClassVar[str]  # first word of the label

    bits: int = option(
        4,
        "Bits per stored weight.",
        title="Bits",
        ge=2,
        le=8,
    )
    granularity: Literal["tensor", "channel", "input-channel", "group", "block"] = option(
        "group",
        "Weights that share a scale: the whole tensor, one output channel (row, axis 0), one "
        "input channel (column, axis 1; in a convolution, with its kernel), a group within a row, "
        "or a block of output by input channels.",
        title="Granularity",
        words={
            "tensor": "tensor",
            "channel": "output channel",
            "input-channel": "input channel",
            "group": "group within a row",
            "block": "block of output x input channels",
        },
    )
    group_size: int = option(
        32,
        "Number of adjacent weights in a row that share one scale. The last group of a row may be "
        "shorter.",
        title="Group size",
        ge=1,
        le=65536,
        when={"granularity": ["group"]},
        stops=(8, 16, 32, 64, 128, 256, 512),
    )
    block_rows: int = option(
        16,
        "Output channels per block. The last blocks may be smaller.",
        title="Block output channels",
        ge=1,
        le=65536,
        when={"granularity": ["block"]},
        stops=(1, 4, 8, 16, 32, 64, 128),
    )
    block_columns: int = option(
        16,
        "Input channels per block; in a convolution, each includes its kernel. The last blocks "
        "may be smaller.",
        title="Block input channels",
        ge=1,
        le=65536,
        when={"granularity": ["block"]},
        stops=(1, 4, 8, 16, 32, 64, 128),
    )
    scheme: Literal["symmetric", "asymmetric"] = option(
        "symmetric",
        "Symmetric grids are centered on zero. Asymmetric grids store a zero point and fit skewed "
        "weights.",
        title="Scheme",
        words={"symmetric": "symmetric", "asymmetric": "asymmetric (zero point)"},
    )
    range: Range = option(
        "mse",
        "How far the grid extends: the range with the least squared error, the largest weight, a "
        "percentile, a multiple of the root mean square, or the range that changes the "
        "distribution least (entropy; groups of fewer than 8 x 2^bits weights use the largest "
        "weight).",
        title="Clipping range",
        advanced=True,
        words={
            "absmax": "largest weight (absmax)",
            "percentile": "percentile",
            "mse": "least squared error (MSE)",
            "rms": "multiple of the root mean square (RMS)",
            "entropy": "least KL divergence (entropy)",
        },
    )
    percentile: float = option(
        99.9,
        "Percentage of weights inside the range; the others are clipped.",
        title="Percentile",
        advanced=True,
        ge=50,
        le=100,
        when={"range": ["percentile"]},
    )
    rms_multiple: float = option(
        3.0,
        "Range as a multiple of the root mean square of the weights that share a scale, limited "
        "to the largest weight. Weights outside are clipped.",
        title="RMS multiple",
        advanced=True,
        ge=0.5,
        le=20,
        when={"range": ["rms"]},
    )
    scales: Literal["free", "power-of-two"] = option(
        "free",
        "Free: any number, stored in 16 bits. Power of two: fixed-point numbers; the scale is a "
        "bit shift and takes one byte.",
        title="Scales",
        advanced=True,
        words={"free": "any number", "power-of-two": "power of two (fixed point)"},
    )
    grid: Literal["full", "narrow"] = option(
        "full",
        "Full: levels -2^(b-1) to 2^(b-1)-1, as in current file formats. Narrow: without the "
        "lowest level, so that both sides are equal.",
        title="Levels",
        advanced=True,
        when={"scheme": ["symmetric"]},
    )

    @property
    def group(self) -> int:
        return self.group_size if self.granularity == "group" else 0

    @property
    def widest_is_a_tie(self) -> bool:
        """True if a group's largest weight, where it is negative, lies exactly between the two
        lowest levels.
        """
        return self.scheme == "symmetric" and self.grid == "full" and self.scales == "free"

    @property
    def revision(self) -> int:
        """2: scales are rounded down to float16 if the largest weight is a tie; 1: they were
        rounded to nearest.
        """
        return 2 if self.widest_is_a_tie else 1

    def label(self) -> str:
        shared = {
            "group": f"groups of {self.group_size}",
            "block": f"blocks of {self.block_rows} x {self.block_columns}",
        }
        extras: list[str] = [
            word
            for word in (self.scheme, self.range, self.grid)
            if word not in ("symmetric", "mse", "full")
        ]
        extras += ["fixed point"] * (self.scales == "power-of-two")
        return ", ".join(
            [
                f"{self.label_name} {self.bits}-bit",
                shared.get(self.granularity, f"per {self.granularity}"),
                *extras,
            ]
        )


class ScaledFormat(Technique):
    """Options shared by formats with a scale per tensor, channel or group."""

    family: ClassVar[Family] = "quantization"
    accepts: ClassVar[tuple[WeightState, ...]] = ("dense", "fewer", "zeros", "factors")
    granularity: Granularity
    group_size: int

    def granularity_label(self) -> str:
        return (
            f"groups of {self.group_size}"
            if self.granularity == "group"
            else f"per {self.granularity}"
        )
