"""Truncated singular value decomposition, plain or weighted by calibration data."""

from typing import ClassVar, Literal

from engine.config.technique import LiveView, option
from engine.techniques.low_rank.options import BY, ENERGY, FACTORS, KEPT, WhitenedLowRank


class SVD(WhitenedLowRank):
    live_views: ClassVar[tuple[LiveView, ...]] = ("singular-values", "rank-planner")
    list_position: ClassVar[int] = 250
    title: ClassVar[str] = "SVD"
    kind: ClassVar[str] = "Matrices"
    summary: ClassVar[str] = (
        "Stores a weight as two narrow matrices: keeps its largest singular values and drops the "
        "others."
    )
    explanation: ClassVar[str] = (
        "A weight of m x n is a sum of rank-one directions, each with a **singular value**. "
        "Keeping the r largest replaces the layer by two smaller ones, n to r to m, with r (m + n) "
        "parameters: fewer only below the **break-even rank** mn / (m + n). No matrix of rank r is "
        "closer to the weight, but a small weight error does not mean a small output error. After "
        "**whitening** with the inputs, the singular values show which directions the data uses. "
        "With one **global** budget, each layer's energy is normalized and the next parameter goes "
        "to the direction that adds the most."
    )
    formula: ClassVar[str] = (
        r"\begin{gathered} W S = U \Sigma V^\top, \qquad S S^\top = \tfrac1N X X^\top \\[4pt]"
        r" \hat W = \left(U_r \Sigma_r^{1/2}\right) \left(\Sigma_r^{1/2} V_r^\top S^{-1}\right) "
        r"\end{gathered}"
    )
    limitations: ClassVar[str] = (
        "Without whitening, large language models collapse early, because their weights have few "
        "weak directions. With it, removing 20% costs little; removing 60% needs fine-tuning "
        "afterwards. Square matrices have the lowest break-even rank: half their size."
    )
    paper: ClassVar[str] = (
        "[Wang et al. 2024, SVD-LLM (arXiv:2403.07378)](https://arxiv.org/abs/2403.07378), "
        "[Yuan et al. 2023, ASVD (arXiv:2312.05821)](https://arxiv.org/abs/2312.05821), "
        "[Hsu et al. 2022, FWSVD (arXiv:2207.00112)](https://arxiv.org/abs/2207.00112)"
    )

    technique: Literal["svd"] = "svd"
    by: Literal["kept", "energy", "rank"] = option(
        "kept",
        "What sets the rank of each layer.",
        title="Choose ranks by",
        words=BY,
    )
    kept: float = option(**KEPT)
    energy: float = option(**ENERGY)
    rank: int = option(
        32,
        "Rank of every layer. At or above the break-even rank the factors are larger than the "
        "matrix; at full rank the layer is unchanged.",
        title="Rank",
        ge=1,
        le=65536,
        stops=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
        when={"by": ["rank"]},
    )
    scope: Literal["layer", "global"] = option(
        "global",
        "Applies the share to each layer, or to all layers together, so that some keep more than "
        "others. Global loses less at the same size, except without whitening when most of the "
        "model is removed. The preview of one layer applies the share to that layer alone.",
        title="Scope",
        when={"by": ["kept", "energy"]},
        words={"layer": "per layer", "global": "global (all layers)"},
    )
    solver: Literal["exact", "randomized"] = option(
        "exact",
        "Exact: all singular values (LAPACK). Randomized: only slightly more than are kept, from "
        "random projections; faster for large matrices, slightly less accurate.",
        title="Solver",
        advanced=True,
    )
    iterations: int = option(
        2,
        "Number of power iterations; each brings the result closer to the exact one.",
        title="Power iterations",
        advanced=True,
        ge=0,
        le=10,
        when={"solver": ["randomized"]},
    )
    factors: Literal["model", "float32", "bfloat16", "float16"] = option(**FACTORS)

    @property
    def size_is_at_most(self) -> bool:
        return self.by == "energy" or (self.by == "kept" and self.scope == "global")

    def label(self) -> str:
        size = {
            "kept": f"{100 * self.kept:g}% kept",
            "energy": f"{100 * self.energy:g}% of the energy",
            "rank": f"rank {self.rank}",
        }[self.by]
        shared = " of all layers" if self.scope == "global" and self.by != "rank" else ""
        white = {"none": "", "asvd": ", ASVD", "svd-llm": ", whitened", "fisher": ", Fisher"}[
            self.whitening
        ]
        return f"SVD {size}{shared}{white}" + (
            ", randomized" if self.solver == "randomized" else ""
        )
