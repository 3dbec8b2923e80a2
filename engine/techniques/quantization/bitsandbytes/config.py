"""Number formats of the bitsandbytes library."""

from typing import ClassVar, Literal

from engine.config.technique import Family, Technique, WeightState, option


class BitsAndBytes(Technique):
    list_position: ClassVar[int] = 20
    title: ClassVar[str] = "bitsandbytes (NF4, FP4, INT8)"
    kind: ClassVar[str] = "Number format"
    family: ClassVar[Family] = "quantization"
    accepts: ClassVar[tuple[WeightState, ...]] = ("dense", "fewer", "zeros", "factors")
    summary: ClassVar[str] = (
        "The formats behind QLoRA and load_in_4bit / load_in_8bit, from the bitsandbytes library."
    )
    explanation: ClassVar[str] = (
        "Trained weights are roughly normally distributed, so a uniform grid spends levels where "
        "few weights are. **NF4** places its 16 levels at the quantiles of a normal distribution; "
        "**FP4** is a 4-bit floating-point number; **INT8** is a uniform grid per output channel. "
        "Each block of weights is scaled by its largest magnitude (absmax). **Double "
        "quantization** stores these in 8 bits as well."
    )
    formula: ClassVar[str] = (
        r"\begin{gathered} a = \max_{\text{block}}|w| \\[4pt] q=\arg\min_i \left|\,w/a - "
        r"L[i]\,\right| \\[4pt]"
        r" \hat w = a\cdot L[q] \end{gathered}"
    )
    limitations: ClassVar[str] = (
        "The levels are fixed, so blocks with another distribution waste some of them. Embeddings "
        "are not quantized unless you include them, and in a small model they dominate the size."
    )
    paper: ClassVar[str] = (
        "[Dettmers et al. 2023, QLoRA (arXiv:2305.14314)](https://arxiv.org/abs/2305.14314)"
    )

    technique: Literal["bitsandbytes"] = "bitsandbytes"
    format: Literal["nf4", "fp4", "int8"] = option(
        "nf4",
        "NF4: 16 normal-quantile levels. FP4: 4-bit floating point. INT8: 8 bits per channel.",
        title="Format",
        words={"nf4": "NF4", "fp4": "FP4", "int8": "INT8"},
    )
    block_size: Literal[64, 128, 256, 512, 1024, 2048, 4096] = option(
        64,
        "Number of adjacent weights that share one absmax.",
        title="Block size",
        when={"format": ["nf4", "fp4"]},
    )
    double_quantization: bool = option(
        False,
        "Stores the blocks' absmax values in 8 bits: at blocks of 64, 0.127 instead of 0.5 bits "
        "per weight.",
        title="Double quantization",
        when={"format": ["nf4", "fp4"]},
    )

    def label(self) -> str:
        if self.format == "int8":
            return "bitsandbytes INT8"
        return f"{self.format.upper()}, blocks of {self.block_size}" + (
            ", double" if self.double_quantization else ""
        )
