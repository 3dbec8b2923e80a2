"""Floating-point formats of 4 to 64 bits."""

from typing import ClassVar, Literal

from engine.config.technique import Family, Technique, WeightState, option


class FloatingPoint(Technique):
    list_position: ClassVar[int] = 130
    title: ClassVar[str] = "Floating point (FP8, MXFP4)"
    kind: ClassVar[str] = "Number format"
    family: ClassVar[Family] = "quantization"
    accepts: ClassVar[tuple[WeightState, ...]] = ("dense", "fewer", "zeros", "factors")
    summary: ClassVar[str] = (
        "Stores every weight as a shorter floating-point number: half precision, FP8, or 4 bits "
        "with a shared exponent."
    )
    explanation: ClassVar[str] = (
        "A floating-point number has a sign, an **exponent** and a **mantissa**, so its steps grow "
        "with the number: small weights have small errors. **E4M3** has 4 exponent and 3 mantissa "
        "bits; **E5M2** has a larger range and coarser steps. A scale can first stretch the "
        "weights to the format's range. In **MXFP4**, 32 neighbors share a power-of-two scale "
        "(E8M0), and each is 0, 0.5, 1, 1.5, 2, 3, 4 or 6 with a sign: 4.25 bits in total. NVFP4, "
        "which Blackwell GPUs mostly run, uses blocks of 16 with an E4M3 scale and loses less "
        "accuracy; it is not offered here. bfloat16 has float32's range with 8 bits of precision; "
        "float16 has 11 bits and ends at 65504."
    )
    formula: ClassVar[str] = (
        r"\begin{gathered} \hat w = (-1)^s\, 2^{e - \mathrm{bias}} \left(1 + \frac{m}{2^M}\right)"
        r" \cdot \mathrm{scale} \quad (e > 0) \\[4pt]"
        r" \hat w = (-1)^s\, 2^{1 - \mathrm{bias}}\, \frac{m}{2^M} \cdot \mathrm{scale} \quad (e "
        r"= 0) \\[4pt]"
        r" \mathrm{scale}_{\text{MXFP4}} = 2^{\lfloor \log_2 \max|w| \rfloor - 2} \end{gathered}"
    )
    limitations: ClassVar[str] = (
        "8-bit floating point has only 2 or 3 mantissa bits: for normally distributed weights a "
        "uniform 8-bit grid is finer. Without a scale, weights below the format's smallest number "
        "become zero and those above its largest are clipped. MXFP4's power-of-two scale clips "
        "weights between 6 and 8 times the scale, so the largest weight of a block can be off by "
        "up to 25%. Storing a float32 model in float64 only doubles the file."
    )
    paper: ClassVar[str] = (
        "[Micikevicius et al. 2022, FP8 Formats for Deep Learning "
        "(arXiv:2209.05433)](https://arxiv.org/abs/2209.05433); [Rouhani et al. 2023, Microscaling "
        "Data Formats (arXiv:2310.10537)](https://arxiv.org/abs/2310.10537)"
    )

    technique: Literal["float"] = "float"
    format: Literal[
        "fp8-e4m3", "fp8-e5m2", "mxfp4", "bfloat16", "float16", "float32", "float64"
    ] = option(
        "fp8-e4m3",
        "FP8: one byte per weight. MXFP4: 4 bits and a shared exponent for 32 neighbors. The "
        "others are standard precisions of 16, 32 and 64 bits.",
        title="Format",
        words={"fp8-e4m3": "FP8 E4M3", "fp8-e5m2": "FP8 E5M2", "mxfp4": "MXFP4"},
    )
    scale: Literal["none", "tensor", "channel"] = option(
        "channel",
        "What is scaled to the format's largest number: nothing (plain cast), the whole tensor, "
        "or each output channel (row).",
        title="Granularity",
        words={
            "none": "no scale (plain cast)",
            "tensor": "tensor",
            "channel": "output channel",
        },
        when={"format": ["fp8-e4m3", "fp8-e5m2"]},
    )

    def label(self) -> str:
        names = {"fp8-e4m3": "FP8 E4M3", "fp8-e5m2": "FP8 E5M2", "mxfp4": "MXFP4"}
        scaled = {"none": ", plain cast", "tensor": ", per tensor", "channel": ", per channel"}[
            self.scale
        ]
        return names.get(self.format, self.format) + (
            scaled if self.format.startswith("fp8") else ""
        )
