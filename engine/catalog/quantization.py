"""Quantization: fewer bits for each stored number."""

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator

from engine.catalog.technique import Family, Made, Technique, option

Range = Annotated[
    Literal["absmax", "percentile", "mse", "rms", "entropy"],
    BeforeValidator(lambda value: "absmax" if value == "min-max" else value),  # the same thing where the grid has a zero point
]


class RoundToNearest(Technique):
    title: ClassVar[str] = "Round to nearest"
    kind: ClassVar[str] = "Even grid"
    family: ClassVar[Family] = "quantization"
    takes: ClassVar[tuple[Made, ...]] = ("dense", "fewer", "zeros", "factors")
    summary: ClassVar[str] = "Put every weight on the nearest step of an even grid. Needs no data, takes seconds."
    idea: ClassVar[str] = (
        "Weights that sit together share one step size, the **scale**. Each weight is divided by the scale, rounded to a whole "
        "number of a few bits, and stored as that number (its **code**). Multiplying back gives a value at most half a step away. "
        "The smaller the group that shares a scale, the finer the steps, and the more scales have to be stored. With scales that are powers of "
        "two, the codes are **fixed-point** numbers: multiplying by the scale is a shift."
    )
    formula: ClassVar[str] = (
        r"\begin{gathered} q = \mathrm{clip}\left(\mathrm{round}(w/s) + z,\ q_{\min},\ q_{\max}\right) \\[4pt]"
        r" \hat w = s\,(q - z) \\[4pt] s_{\text{symmetric}} = \frac{\max|w|}{2^{b-1}-1/2} \end{gathered}"
    )
    fails: ClassVar[str] = (
        "Below 4 bits the steps become coarser than most weights. One outlier stretches the grid for everything that shares its "
        "scale: use smaller groups, clip the range, or a method that looks at data (GPTQ, AWQ)."
    )
    paper: ClassVar[str] = "[Jacob et al. 2018, Quantization and Training of Neural Networks (arXiv:1712.05877)](https://arxiv.org/abs/1712.05877)"

    technique: Literal["round-to-nearest"] = "round-to-nearest"
    bits: int = option(4, "Bits of one stored weight.", title="Bits", ge=2, le=8)
    granularity: Literal["tensor", "channel", "input-channel", "group", "block"] = option(
        "group",
        "Which weights share one scale: the whole tensor, one output channel (row, axis 0), one input channel (column, axis 1; of a convolution "
        "with its whole kernel), a group inside a row, or a block of output by input channels.",
        title="Weights that share one scale (granularity)",
        words={
            "tensor": "whole tensor",
            "channel": "output channel",
            "input-channel": "input channel",
            "group": "group in a row",
            "block": "block of output x input channels",
        },
    )
    group_size: int = option(
        32,
        "How many neighbouring weights of a row share one scale. The last group of a row may be shorter.",
        title="Group size",
        ge=1,
        le=65536,
        when={"granularity": ["group"]},
        stops=(8, 16, 32, 64, 128, 256, 512),
    )
    block_rows: int = option(
        16,
        "Output channels of a block. The last blocks may be smaller.",
        title="Output channels of a block",
        ge=1,
        le=65536,
        when={"granularity": ["block"]},
        stops=(1, 4, 8, 16, 32, 64, 128),
    )
    block_columns: int = option(
        16,
        "Input channels of a block; of a convolution each comes with its whole kernel. The last blocks may be smaller.",
        title="Input channels of a block",
        ge=1,
        le=65536,
        when={"granularity": ["block"]},
        stops=(1, 4, 8, 16, 32, 64, 128),
    )
    scheme: Literal["symmetric", "asymmetric"] = option(
        "symmetric",
        "Symmetric grids are centred on zero; asymmetric ones store a zero point and fit lopsided weights.",
        title="Grid (scheme)",
        words={"symmetric": "centred on zero (symmetric)", "asymmetric": "with a zero point (asymmetric)"},
    )
    range: Range = option(
        "absmax",
        "How far the grid reaches: the widest weight, a percentile of them, a multiple of their size (RMS), where the squared error is least, or "
        "where the distribution changes least (entropy; groups of fewer than 8 x 2^bits weights keep the widest).",
        title="Range (clipping)",
        advanced=True,
        words={
            "absmax": "widest weight (absmax)",
            "percentile": "a percentile",
            "mse": "least squared error",
            "rms": "a multiple of the root mean square (RMS)",
            "entropy": "least information lost (entropy, KL)",
        },
    )
    percentile: float = option(
        99.9,
        "Share of weights inside the range, in percent; the rest is clipped.",
        title="Percentile",
        advanced=True,
        ge=50,
        le=100,
        when={"range": ["percentile"]},
    )
    rms_multiple: float = option(
        3.0,
        "The range in root mean squares of the weights that share it, at most up to the widest weight; the rest is clipped.",
        title="RMS multiple",
        advanced=True,
        ge=0.5,
        le=20,
        when={"range": ["rms"]},
    )
    scales: Literal["free", "power-of-two"] = option(
        "free",
        "Free: any number, in 16 bits. Power of two: fixed-point numbers, whose scale is a shift of bits and takes one byte.",
        title="Scales",
        advanced=True,
        words={"free": "any number", "power-of-two": "power of two (fixed point)"},
    )
    grid: Literal["full", "narrow"] = option(
        "full",
        "Full: levels -2^(b-1) to 2^(b-1)-1, as today's file formats have it. Narrow: without the lowest level, so both sides are equal.",
        title="Levels",
        advanced=True,
        when={"scheme": ["symmetric"]},
    )

    @property
    def group(self) -> int:
        return self.group_size if self.granularity == "group" else 0

    def label(self) -> str:
        shared = {"group": f"groups of {self.group_size}", "block": f"blocks of {self.block_rows} x {self.block_columns}"}
        extras = [word for word in (self.scheme, self.range, self.grid) if word not in ("symmetric", "absmax", "full")]
        extras += ["fixed point"] * (self.scales == "power-of-two")
        return ", ".join([f"Rounding {self.bits}-bit", shared.get(self.granularity, f"per {self.granularity}"), *extras])


class BitsAndBytes(Technique):
    title: ClassVar[str] = "bitsandbytes (NF4, FP4, INT8)"
    kind: ClassVar[str] = "Number format"
    family: ClassVar[Family] = "quantization"
    takes: ClassVar[tuple[Made, ...]] = ("dense", "fewer", "zeros", "factors")
    summary: ClassVar[str] = "The formats behind QLoRA and load_in_4bit / load_in_8bit, through the bitsandbytes library."
    idea: ClassVar[str] = (
        "Trained weights are bell-shaped, so an even grid spends levels where few weights are. **NF4** places its 16 levels at the "
        "quantiles of a normal distribution; **FP4** uses a tiny floating-point number; **INT8** is an even grid per output channel. "
        "A block of weights shares its largest magnitude (absmax). **Double quantization** stores those in 8 bits as well."
    )
    formula: ClassVar[str] = (
        r"\begin{gathered} a = \max_{\text{block}}|w| \\[4pt] q=\arg\min_i \left|\,w/a - L[i]\,\right| \\[4pt]"
        r" \hat w = a\cdot L[q] \end{gathered}"
    )
    fails: ClassVar[str] = (
        "The levels are fixed, so a block that is not bell-shaped wastes them. Embeddings stay as they are unless you include them, and in a small "
        "model they weigh most."
    )
    paper: ClassVar[str] = "[Dettmers et al. 2023, QLoRA (arXiv:2305.14314)](https://arxiv.org/abs/2305.14314)"

    technique: Literal["bitsandbytes"] = "bitsandbytes"
    format: Literal["nf4", "fp4", "int8"] = option(
        "nf4",
        "NF4: 16 normal-quantile levels. FP4: 4-bit floating point. INT8: 8 bits per channel.",
        title="Format",
        words={"nf4": "NF4", "fp4": "FP4", "int8": "INT8"},
    )
    block_size: Literal[64, 128, 256, 512, 1024, 2048, 4096] = option(
        64, "How many neighbouring weights share one absmax.", title="Block size", when={"format": ["nf4", "fp4"]}
    )
    double_quantization: bool = option(
        False,
        "Store the blocks' absmax values in 8 bits: 0.127 instead of 0.5 bits per weight.",
        title="Double quantization",
        when={"format": ["nf4", "fp4"]},
    )

    def label(self) -> str:
        if self.format == "int8":
            return "bitsandbytes INT8"
        return f"{self.format.upper()}, blocks of {self.block_size}" + (", double" if self.double_quantization else "")
