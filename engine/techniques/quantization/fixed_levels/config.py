"""Ternary, binary and power-of-two levels."""

from typing import Any, ClassVar, Literal

from engine.config.technique import option
from engine.techniques.quantization.scale_options import Granularity, ScaledFormat

GRANULARITY: dict[str, Any] = {
    "title": "Granularity",
    "words": {"tensor": "tensor", "channel": "output channel", "group": "group within a row"},
    "description": (
        "Weights that share a scale: the whole tensor, one output channel (row), or a group "
        "within a row."
    ),
}


GROUP_SIZE: dict[str, Any] = {
    "title": "Group size",
    "ge": 1,
    "le": 65536,
    "stops": (8, 16, 32, 64, 128, 256, 512),
    "description": "Number of adjacent weights in a row that share one scale. The last group of "
    "a row may be "
    "shorter.",
    "when": {"granularity": ["group"]},
}


class Ternary(ScaledFormat):
    list_position: ClassVar[int] = 140
    title: ClassVar[str] = "Ternary and binary"
    kind: ClassVar[str] = "Number format"
    summary: ClassVar[str] = (
        "Three or two values per weight: 1.6 bits or 1 bit. The limit of quantization."
    )
    explanation: ClassVar[str] = (
        "**Ternary** weights are −1, 0 or 1 times a scale, the mean magnitude of the weights that "
        "share it (**absmean**, as in BitNet b1.58); weights below half the scale become 0. Three "
        "values carry log₂3 = 1.58 bits; five of them fit into a byte (3⁵ = 243), which is 1.6 "
        "bits each. **Binary** weights are the sign times the mean magnitude, the optimal scale "
        "for signs (XNOR-Net): 1 bit."
    )
    formula: ClassVar[str] = (
        r"\begin{gathered} \gamma = \frac{1}{n} \sum |w| \\[4pt] \hat w_{\text{ternary}} = "
        r"\gamma \cdot"
        r" \mathrm{clip}\left(\mathrm{round}(w/\gamma), -1, 1\right) \\[4pt] \hat "
        r"w_{\text{binary}} = \gamma \cdot \mathrm{sign}(w) \end{gathered}"
    )
    limitations: ClassVar[str] = (
        "Rounding a trained model like this destroys it: about half of each weight's magnitude is "
        "lost, and a language model writes nonsense. The models in the papers were **trained** "
        "with ternary or binary weights from the start. Use it to see what such training has to "
        "recover."
    )
    paper: ClassVar[str] = (
        "[Ma et al. 2024, BitNet b1.58 (arXiv:2402.17764)](https://arxiv.org/abs/2402.17764); "
        "[Rastegari et al. 2016, XNOR-Net (arXiv:1603.05279)](https://arxiv.org/abs/1603.05279)"
    )

    technique: Literal["ternary"] = "ternary"
    values: Literal["ternary", "binary"] = option(
        "ternary",
        "Ternary: −1, 0 and 1, five per byte. Binary: −1 and 1, eight per byte.",
        title="Values",
        words={"ternary": "ternary (−1, 0, 1)", "binary": "binary (−1, 1)"},
    )
    granularity: Granularity = option("channel", **GRANULARITY)
    group_size: int = option(32, **GROUP_SIZE)

    def label(self) -> str:
        return f"{self.values.capitalize()}, {self.granularity_label()}"


class Logarithmic(ScaledFormat):
    list_position: ClassVar[int] = 120
    title: ClassVar[str] = "Powers of two (logarithmic)"
    kind: ClassVar[str] = "Number format"
    summary: ClassVar[str] = (
        "Rounds every weight to a power of two, so that a product is a bit shift. Fine steps near "
        "zero, coarse ones for large weights."
    )
    explanation: ClassVar[str] = (
        "The **logarithm** of each weight is rounded: the levels are scale · 2⁰, 2⁻¹, 2⁻², ... "
        "with both signs, and zero. Neighboring levels differ by a factor of two, so the relative "
        "error is the same everywhere: at most a factor of √2 inside the range, or 2^(1/2n) with n "
        "steps per octave. If the scale is a power of two as well, a multiplication is a bit "
        "shift. More bits reach closer to zero but do not make steps finer; more steps per octave "
        "do."
    )
    formula: ClassVar[str] = (
        r"\begin{gathered} k = \mathrm{round}\left(n \log_2 \frac{|w|}{s}\right) / n \\[4pt] "
        r"\hat w = \mathrm{sign}(w)\, s\, 2^{k},"
        r" \qquad -\frac{2^{b-1} - 2}{n} \le k \le 0 \\[4pt] s = 2^{\lceil \log_2 \max|w| - "
        r"1/(2n) \rceil} \end{gathered}"
    )
    limitations: ClassVar[str] = (
        "The largest weights, which matter most, have the widest steps. From 4 bits on, more bits "
        "barely help with one step per octave. INQ retrains in stages to recover the loss."
    )
    paper: ClassVar[str] = (
        "[Miyashita et al. 2016, LogNet (arXiv:1603.01025)](https://arxiv.org/abs/1603.01025); "
        "[Zhou et al. 2017, INQ (arXiv:1702.03044)](https://arxiv.org/abs/1702.03044)"
    )

    technique: Literal["log"] = "log"
    bits: int = option(
        4,
        "Bits per stored weight: sign and exponent.",
        title="Bits",
        ge=2,
        le=8,
    )
    granularity: Granularity = option("channel", **GRANULARITY)
    group_size: int = option(32, **GROUP_SIZE)
    steps_per_octave: Literal[1, 2, 4] = option(
        1,
        "Levels per factor of two: 1 for pure powers of two, 2 for base √2 (LogNet), 4 for even "
        "finer steps.",
        title="Steps per octave",
    )
    scales: Literal["power-of-two", "free"] = option(
        "power-of-two",
        "Power of two: one byte each; with one step per octave every weight is a power of two. "
        "Free: the largest weight is represented exactly.",
        title="Scales",
        advanced=True,
        words={"power-of-two": "power of two", "free": "largest weight (absmax)"},
    )

    def label(self) -> str:
        extras = [f"{self.steps_per_octave} steps per octave"] * (self.steps_per_octave > 1) + [
            "free scales"
        ] * (self.scales == "free")
        return ", ".join([f"Powers of two {self.bits}-bit", self.granularity_label(), *extras])
