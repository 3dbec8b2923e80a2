"""Number formats that are no even grid: floating point, powers of two, three values or two, a codebook."""

from typing import ClassVar, Literal

from engine.catalog.technique import Family, Made, Technique, option

GRANULARITY = {
    "title": "Weights that share one scale (granularity)",
    "words": {"tensor": "whole tensor", "channel": "output channel", "group": "group in a row"},
    "description": "Which weights share one scale: the whole tensor, one output channel (row), or a group inside a row.",
}
GROUP_SIZE = {
    "title": "Group size", "ge": 1, "le": 65536, "stops": (8, 16, 32, 64, 128, 256, 512),
    "description": "How many neighbouring weights of a row share one scale. The last group of a row may be shorter.",
    "when": {"granularity": ["group"]},
}  # fmt: skip
Granularity = Literal["tensor", "channel", "group"]


class Scaled(Technique):
    """What formats share that have a scale for the tensor, a channel or a group."""

    family: ClassVar[Family] = "quantization"
    takes: ClassVar[tuple[Made, ...]] = ("dense", "fewer", "zeros", "factors")
    granularity: Granularity
    group_size: int

    def shared(self) -> str:
        return f"groups of {self.group_size}" if self.granularity == "group" else f"per {self.granularity}"


class FloatingPoint(Technique):
    title: ClassVar[str] = "Floating point (FP8, MXFP4)"
    kind: ClassVar[str] = "Number format"
    family: ClassVar[Family] = "quantization"
    takes: ClassVar[tuple[Made, ...]] = ("dense", "fewer", "zeros", "factors")
    summary: ClassVar[str] = "Store every weight as a shorter floating-point number: half precision, FP8, or 4 bits with a shared exponent."
    idea: ClassVar[str] = (
        "A floating-point number is a sign, an **exponent** and a few digits (**mantissa**), so its steps grow with the number: small weights "
        "keep small errors. **E4M3** has 4 bits of exponent and 3 of mantissa, **E5M2** reaches further with coarser steps. A scale can stretch "
        "the weights to the format's range first. In **MXFP4**, 32 neighbours share one power of two (E8M0), and each is one of 0, 0.5, 1, 1.5, "
        "2, 3, 4, 6 with a sign: 4.25 bits in all. bfloat16 has float32's range with 8 bits of precision; float16 has 11 and ends at 65504."
    )
    formula: ClassVar[str] = (
        r"\begin{gathered} \hat w = (-1)^s\, 2^{e - \mathrm{bias}} \left(1 + \frac{m}{2^M}\right) \cdot \mathrm{scale} \\[4pt]"
        r" \mathrm{scale}_{\text{MXFP4}} = 2^{\lfloor \log_2 \max|w| \rfloor - 2} \end{gathered}"
    )
    fails: ClassVar[str] = (
        "Eight bits of floating point have only 3 or 2 binary digits: for bell-shaped weights an even 8-bit grid is finer. Without a scale, "
        "weights below the format's smallest number become zero and those beyond its largest are clipped to it. float64 of a float32 model only "
        "doubles the file."
    )
    paper: ClassVar[str] = (
        "[Micikevicius et al. 2022, FP8 Formats for Deep Learning (arXiv:2209.05433)](https://arxiv.org/abs/2209.05433); "
        "[Rouhani et al. 2023, Microscaling Data Formats (arXiv:2310.10537)](https://arxiv.org/abs/2310.10537)"
    )

    technique: Literal["float"] = "float"
    format: Literal["fp8-e4m3", "fp8-e5m2", "mxfp4", "bfloat16", "float16", "float32", "float64"] = option(
        "fp8-e4m3",
        "FP8: one byte a weight. MXFP4: 4 bits, and an exponent for 32 neighbours. The others are the usual precisions of 16, 32 and 64 bits.",
        title="Format",
        words={"fp8-e4m3": "FP8 E4M3", "fp8-e5m2": "FP8 E5M2", "mxfp4": "MXFP4"},
    )
    scale: Literal["none", "tensor", "channel"] = option(
        "channel",
        "What is stretched to the format's largest number: nothing (a plain cast), the whole tensor, or each output channel (row).",
        title="Weights that share one scale (granularity)",
        words={"none": "no scale (plain cast)", "tensor": "whole tensor", "channel": "output channel"},
        when={"format": ["fp8-e4m3", "fp8-e5m2"]},
    )

    def label(self) -> str:
        names = {"fp8-e4m3": "FP8 E4M3", "fp8-e5m2": "FP8 E5M2", "mxfp4": "MXFP4"}
        scaled = {"none": ", plain cast", "tensor": ", per tensor", "channel": ", per channel"}[self.scale]
        return names.get(self.format, self.format) + (scaled if self.format.startswith("fp8") else "")


class Ternary(Scaled):
    title: ClassVar[str] = "Ternary and binary"
    kind: ClassVar[str] = "Number format"
    summary: ClassVar[str] = "Only three values, or two, for each weight: 1.6 bits, or 1. The limit, and a lesson."
    idea: ClassVar[str] = (
        "**Ternary** weights are −1, 0 or 1 times a scale, the mean magnitude of the weights that share it (**absmean**, as in BitNet b1.58): "
        "what is smaller than half the scale becomes 0. Three values carry log₂3 = 1.58 bits; five of them fit into a byte (3⁵ = 243), which is "
        "1.6. **Binary** weights are the sign alone times the mean magnitude (XNOR-Net), which is the best scale there is for signs: 1 bit."
    )
    formula: ClassVar[str] = (
        r"\begin{gathered} \gamma = \frac{1}{n} \sum |w| \\[4pt] \hat w_{\text{ternary}} = \gamma \cdot"
        r" \mathrm{clip}\left(\mathrm{round}(w/\gamma), -1, 1\right) \\[4pt] \hat w_{\text{binary}} = \gamma \cdot \mathrm{sign}(w) \end{gathered}"
    )
    fails: ClassVar[str] = (
        "Rounding a trained model like this destroys it: about half of each weight's size is lost, and the model writes nonsense. The models in "
        "the papers were **trained** with ternary or binary weights from the start, and learned to live with them. See it here to know what "
        "training has to make good."
    )
    paper: ClassVar[str] = (
        "[Ma et al. 2024, BitNet b1.58 (arXiv:2402.17764)](https://arxiv.org/abs/2402.17764); "
        "[Rastegari et al. 2016, XNOR-Net (arXiv:1603.05279)](https://arxiv.org/abs/1603.05279)"
    )

    technique: Literal["ternary"] = "ternary"
    values: Literal["ternary", "binary"] = option(
        "ternary", "Ternary: −1, 0 and 1, five in a byte. Binary: −1 and 1, eight in a byte.", title="Values",
        words={"ternary": "−1, 0, 1 (ternary)", "binary": "−1, 1 (binary)"},
    )  # fmt: skip
    granularity: Granularity = option("channel", **GRANULARITY)
    group_size: int = option(32, **GROUP_SIZE)

    def label(self) -> str:
        return f"{self.values.capitalize()}, {self.shared()}"


class Logarithmic(Scaled):
    title: ClassVar[str] = "Powers of two (logarithmic)"
    kind: ClassVar[str] = "Number format"
    summary: ClassVar[str] = "Every weight becomes a power of two, so that a product is a shift. Fine steps near zero, coarse ones far out."
    idea: ClassVar[str] = (
        "Not the weight is rounded but its **logarithm**: the levels are scale · 2⁰, 2⁻¹, 2⁻² ... with both signs, and zero. Neighbouring levels "
        "differ by a factor of two, so the relative error is the same everywhere, at most a factor of √2 inside the range. When the scale is a "
        "power of two as well, a multiplication is only a shift of bits. More bits reach closer to zero but make no step finer: that takes "
        "several steps an octave."
    )
    formula: ClassVar[str] = (
        r"\begin{gathered} k = \mathrm{round}\left(n \log_2 \frac{|w|}{s}\right) / n \\[4pt] \hat w = \mathrm{sign}(w)\, s\, 2^{k},"
        r" \qquad -\frac{2^{b-1} - 2}{n} \le k \le 0 \\[4pt] s = 2^{\lceil \log_2 \max|w| - 1/(2n) \rceil} \end{gathered}"
    )
    fails: ClassVar[str] = (
        "The largest weights, which matter most, have the widest steps. From 4 bits on, more bits barely help with one step an octave: the "
        "papers retrain (INQ, in parts) to make good what is lost."
    )
    paper: ClassVar[str] = (
        "[Miyashita et al. 2016, LogNet (arXiv:1603.01025)](https://arxiv.org/abs/1603.01025); "
        "[Zhou et al. 2017, INQ (arXiv:1702.03044)](https://arxiv.org/abs/1702.03044)"
    )

    technique: Literal["log"] = "log"
    bits: int = option(4, "Bits of one stored weight: its sign and its exponent.", title="Bits", ge=2, le=8)
    granularity: Granularity = option("channel", **GRANULARITY)
    group_size: int = option(32, **GROUP_SIZE)
    steps_per_octave: Literal[1, 2, 4] = option(
        1, "Levels for each factor of two: 1 for pure powers of two, 2 for base √2 (LogNet), 4 for finer still.", title="Steps an octave"
    )
    scales: Literal["power-of-two", "free"] = option(
        "power-of-two",
        "Power of two: one byte each, and with one step an octave every weight is a power of two. Free: the largest weight is met exactly.",
        title="Scales",
        advanced=True,
        words={"power-of-two": "power of two", "free": "the widest weight (absmax)"},
    )

    def label(self) -> str:
        extras = [f"{self.steps_per_octave} steps an octave"] * (self.steps_per_octave > 1) + ["free scales"] * (self.scales == "free")
        return ", ".join([f"Powers of two {self.bits}-bit", self.shared(), *extras])


class Codebook(Technique):
    title: ClassVar[str] = "Codebook (k-means)"
    kind: ClassVar[str] = "Number format"
    family: ClassVar[Family] = "quantization"
    takes: ClassVar[tuple[Made, ...]] = ("dense", "fewer", "zeros", "factors")
    summary: ClassVar[str] = "The levels go where the weights are: k-means finds a few shared values for a layer; each weight stores which."
    idea: ClassVar[str] = (
        "The weights of a layer are sorted into 2ᵇ **clusters**, each with one shared value, its mean (**centroid**). A weight stores only the "
        "number of its cluster (**index**); the list of centroids is the **codebook**. Starting values are evenly spaced (linear), spread as the "
        "weights are (density), or weights picked at random; linear ones keep the rare large weights best. Some indices are far more frequent "
        "than others: **Huffman coding** gives those shorter codes and loses nothing."
    )
    formula: ClassVar[str] = (
        r"\begin{gathered} \min_{c_1 \dots c_k} \sum_{i=1}^{k} \sum_{w \in C_i} |w - c_i|^2, \qquad k = 2^b \\[4pt]"
        r" \text{bits a weight} \approx -\sum_i p_i \log_2 p_i \ \text{(Huffman)} \end{gathered}"
    )
    fails: ClassVar[str] = (
        "One codebook serves a whole layer, so a few outliers take centroids from everyone, and small groups with scales of their own are often "
        "better at equal bytes. Looking up values needs a kernel that does it; Huffman-coded weights have to be decoded before they can be used."
    )
    paper: ClassVar[str] = "[Han et al. 2016, Deep Compression (arXiv:1510.00149)](https://arxiv.org/abs/1510.00149)"

    technique: Literal["codebook"] = "codebook"
    bits: int = option(4, "Bits of one index: 2^bits shared values.", title="Bits", ge=1, le=8)
    rows: int = option(
        0,
        "How many output channels (rows) share one codebook; 0 means the whole layer.",
        title="Rows that share one codebook",
        ge=0,
        le=65536,
        stops=(0, 1, 4, 16, 64, 256),
    )
    coding: Literal["fixed", "huffman"] = option(
        "fixed",
        "How the indices are written: each in the same number of bits, or frequent ones in fewer (Huffman), decoded when the model is first used.",
        title="Indices (coding)",
        words={"fixed": "all alike (fixed length)", "huffman": "Huffman-coded"},
    )
    start: Literal["best", "linear", "density", "random"] = option(
        "best",
        "Where k-means starts. The paper's: evenly spaced values, values with equally many weights between them, or weights picked by the recipe's "
        "seed. Best: evenly spaced, and as dense as the cube root of the weights' density; whichever ends nearer.",
        title="Starting values (initialisation)",
        advanced=True,
        words={
            "best": "the better of two",
            "linear": "evenly spaced (linear)",
            "density": "as the weights are spread (density)",
            "random": "random weights (Forgy)",
        },
    )

    @property
    def size_is_at_most(self) -> bool:
        return self.coding == "huffman"

    def label(self) -> str:
        extras = [f"{self.rows} rows each"] * (self.rows > 0) + ["Huffman"] * (self.coding == "huffman") + [self.start] * (self.start != "best")
        return ", ".join([f"Codebook {self.bits}-bit", *extras])
