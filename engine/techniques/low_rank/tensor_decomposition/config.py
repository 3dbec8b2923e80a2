"""Tucker and CP decomposition of convolution kernels."""

from typing import ClassVar, Literal

from engine.config.technique import LayerKind, option
from engine.techniques.low_rank.options import BY, ENERGY, FACTORS, KEPT, RANKS, LowRankTechnique
from engine.techniques.training_options import batch_option, rate_option, recovery_option


class KernelDecomposition(LowRankTechnique):
    """Options shared by methods for convolutions."""

    layer_kinds: ClassVar[tuple[LayerKind, ...]] = ("conv2d",)
    factors: Literal["model", "float32", "bfloat16", "float16"] = option(**FACTORS)

    @property
    def trains(self) -> bool:
        return self.recovery > 0

    @property
    def recovery_label(self) -> str:
        """Part of the label that names the fine-tuning steps."""
        return f", {self.recovery} fine-tuning steps" if self.trains else ""


class Tucker(KernelDecomposition):
    list_position: ClassVar[int] = 270
    title: ClassVar[str] = "Tucker-2"
    kind: ClassVar[str] = "Convolutions"
    summary: ClassVar[str] = (
        "Replaces a convolution by three: 1 x 1 to fewer channels, a small kernel, 1 x 1 to the "
        "output channels."
    )
    explanation: ClassVar[str] = (
        "A kernel has four axes: outputs, inputs, height and width. Tucker-2 factorizes the first "
        "two. The layer becomes a 1 x 1 convolution that reduces the input channels, a small core "
        "kernel, and a 1 x 1 convolution to all outputs. The two ranks' factors are computed in "
        "alternation (higher-order orthogonal iteration)."
    )
    formula: ClassVar[str] = (
        r"\begin{gathered} \hat W_{oihw} = \sum_{p=1}^{r_o} \sum_{q=1}^{r_i} A_{op}\; G_{pqhw}\; "
        r"B_{iq} \\[4pt]"
        r" r_i\,i + r_i\,r_o\,hw + r_o\,o \;<\; o\,i\,hw \end{gathered}"
    )
    limitations: ClassVar[str] = (
        "1 x 1 kernels are already matrices and are left unchanged: use SVD for them. Three layers "
        "need three passes over memory, so small convolutions may not run faster. Without "
        "fine-tuning afterwards, accuracy drops early."
    )
    paper: ClassVar[str] = (
        "[Kim et al. 2015, Compression of Deep CNNs for Fast and Low Power Mobile "
        "Applications (arXiv:1511.06530)](https://arxiv.org/abs/1511.06530)"
    )

    technique: Literal["tucker"] = "tucker"
    by: Literal["kept", "energy", "rank"] = option(
        "kept",
        "What sets the two ranks.",
        title="Choose ranks by",
        words=BY,
    )
    kept: float = option(**KEPT | {"default": 0.5})
    energy: float = option(
        **ENERGY
        | {"description": "Share of the squared singular values to keep, per output and input."}
    )
    rank_out: int = option(
        16,
        "Rank of the output channels.",
        title="Output rank",
        **RANKS,
        when={"by": ["rank"]},
    )
    rank_in: int = option(
        16,
        "Rank of the input channels.",
        title="Input rank",
        **RANKS,
        when={"by": ["rank"]},
    )
    iterations: int = option(
        50,
        "Maximum number of iterations of higher-order orthogonal iteration.",
        title="Iterations",
        advanced=True,
        ge=1,
        le=1000,
    )
    recovery: int = recovery_option()
    rate: float = rate_option(1e-3, advanced=True)
    batch: int = batch_option(32)

    @property
    def size_is_at_most(self) -> bool:
        return self.by == "energy"

    def label(self) -> str:
        ranks = f"ranks {self.rank_out} and {self.rank_in}"
        size = {
            "kept": f"{100 * self.kept:g}% kept",
            "energy": f"{100 * self.energy:g}% of the energy",
            "rank": ranks,
        }[self.by]
        return f"Tucker-2 {size}{self.recovery_label}"


class CP(KernelDecomposition):
    list_position: ClassVar[int] = 280
    title: ClassVar[str] = "CP"
    kind: ClassVar[str] = "Convolutions"
    summary: ClassVar[str] = (
        "Replaces a convolution by four small ones: 1 x 1, vertical, horizontal, 1 x 1."
    )
    explanation: ClassVar[str] = (
        "The kernel becomes a sum of R terms, each a product of four vectors along outputs, "
        "inputs, height and width (**CP**, canonical polyadic). The layer becomes a 1 x 1 "
        "convolution to R channels, a vertical and a horizontal depthwise convolution, and a 1 x 1 "
        "convolution to the outputs. No closed form exists; the axes are solved one after the "
        "other, repeatedly (alternating least squares)."
    )
    formula: ClassVar[str] = (
        r"\begin{gathered} \hat W_{oihw} = \sum_{k=1}^{R} A_{ok}\, B_{ik}\, C_{hk}\, D_{wk} "
        r"\\[4pt] R\,(o + i + h + w) \;<\; o\,i\,hw \end{gathered}"
    )
    limitations: ClassVar[str] = (
        "Terms can grow large and cancel each other, which makes high ranks unstable and "
        "fine-tuning hard; Tucker-2 is more stable. Depthwise layers need little arithmetic but "
        "much memory bandwidth."
    )
    paper: ClassVar[str] = (
        "[Lebedev et al. 2014, Speeding-up CNNs Using Fine-tuned CP-Decomposition "
        "(arXiv:1412.6553)](https://arxiv.org/abs/1412.6553)"
    )

    technique: Literal["cp"] = "cp"
    by: Literal["kept", "rank"] = option(
        "kept",
        "What sets the number of terms.",
        title="Choose rank by",
        words={"kept": "share of parameters", "rank": "rank"},
    )
    kept: float = option(**KEPT | {"default": 0.5})
    rank: int = option(
        32,
        "Number of terms in the sum.",
        title="Rank",
        ge=1,
        le=4096,
        stops=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
        when={"by": ["rank"]},
    )
    iterations: int = option(
        100,
        "Maximum number of iterations of alternating least squares.",
        title="Iterations",
        advanced=True,
        ge=1,
        le=1000,
    )
    recovery: int = recovery_option()
    rate: float = rate_option(1e-3, advanced=True)
    batch: int = batch_option(32)

    def label(self) -> str:
        return (
            f"CP {f'{100 * self.kept:g}% kept' if self.by == 'kept' else f'rank {self.rank}'}"
            f"{self.recovery_label}"
        )
