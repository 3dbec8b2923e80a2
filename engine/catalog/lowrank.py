"""Low rank: a weight written as a product of smaller ones."""

from typing import ClassVar, Literal

from engine.catalog.courses import batch_option, rate_option, recovery_option
from engine.catalog.quantization import RoundToNearest
from engine.catalog.technique import Family, LayerKind, Made, Needs, Technique, option

FACTORS = {
    "default": "model", "description": "Number format of the factors; by default the one that the weights have in the file.",
    "title": "Format of the factors", "advanced": True, "words": {"model": "as in the model's file"},
}  # fmt: skip
KEPT = {
    "default": 0.8, "title": "Parameters kept", "ge": 0.01, "le": 1, "when": {"by": ["kept"]},
    "description": "Share of the parameters that is left: 0.8 kept is what papers call 20 % removed. 1 leaves every layer as it is.",
}  # fmt: skip
ENERGY = {
    "default": 0.9, "title": "Energy kept", "ge": 0.01, "le": 1, "when": {"by": ["energy"]},
    "description": "Share of the sum of squared singular values that is left. How many parameters that takes, the weights decide.",
}  # fmt: skip
BY = {"kept": "the parameters kept", "energy": "the energy kept", "rank": "the rank itself"}
DATA: dict[str, Needs] = {"none": "nothing", "asvd": "range", "svd-llm": "gram", "fisher": "gradients"}


class LowRank(Technique):
    """What all methods share that write a weight as a product."""

    family: ClassVar[Family] = "low-rank"
    takes: ClassVar[tuple[Made, ...]] = ("dense", "fewer")
    leaves: ClassVar[Made] = "factors"

    @property
    def may_change_nothing(self) -> bool:
        """A layer whose factors would take more than it does is left as it is, and says so."""
        return True


class Whitened(LowRank):
    """What the methods share that may weigh a matrix by data before they factorize it."""

    whitening: Literal["none", "asvd", "svd-llm", "fisher"] = option(
        "svd-llm",
        "What counts while directions are chosen. None: every weight alike. By how strong inputs are (ASVD): columns are scaled. By how inputs go "
        "together (SVD-LLM): what is lost of the layer's output is least. By the slopes of the loss (Fisher): rows, which are outputs, are scaled.",
        title="Errors are weighed by (whitening)",
        words={
            "none": "nothing: every weight alike", "asvd": "how strong inputs are (ASVD)", "svd-llm": "how inputs go together (SVD-LLM)",
            "fisher": "slopes of the loss (Fisher)",
        },
    )  # fmt: skip
    alpha: float = option(
        0.5, "Power of the mean input that a column is multiplied by.", title="Strength of the scaling (alpha)", advanced=True, ge=0, le=1,
        when={"whitening": ["asvd"]},
    )  # fmt: skip
    damping: float = option(
        1e-6, "Added to the diagonal of the inputs' Gram matrix, as a share of its mean; raised by itself where that is not enough.",
        title="Damping", advanced=True, ge=1e-6, le=1, stops=(1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.1, 1), when={"whitening": ["svd-llm"]},
    )  # fmt: skip

    @property
    def needs(self) -> Needs:
        return DATA[self.whitening]


class SVD(Whitened):
    title: ClassVar[str] = "SVD"
    kind: ClassVar[str] = "Matrices"
    summary: ClassVar[str] = "Write a weight as two narrow matrices: the strongest directions stay, the others go."
    idea: ClassVar[str] = (
        "A weight of m x n is a sum of directions, each with a strength (**singular value**). Keep the r strongest, and the layer becomes two "
        "smaller ones, n to r to m, with r (m + n) parameters: fewer only below the **break-even rank** mn / (m + n). No matrix of rank r is nearer "
        "to the weight, but near to the weight is not near to the layer's output. Multiplied by what its inputs look like (**whitening**), the same "
        "sum shows which directions the data uses. With one **global** budget each layer gives up the directions that cost it least: its energy "
        "counts as a share of its own, and the next parameter goes where it adds most."
    )
    formula: ClassVar[str] = (
        r"\begin{gathered} W S = U \Sigma V^\top, \qquad S S^\top = \tfrac1N X^\top X \\[4pt]"
        r" \hat W = \left(U_r \Sigma_r^{1/2}\right) \left(\Sigma_r^{1/2} V_r^\top S^{-1}\right) \end{gathered}"
    )
    fails: ClassVar[str] = (
        "Without whitening, large language models collapse early: their weights have few weak directions. With it, removing 20 % is cheap, and "
        "removing 60 % is not without training afterwards. Square matrices have the lowest break-even: half their size."
    )
    paper: ClassVar[str] = (
        "[Wang et al. 2024, SVD-LLM (arXiv:2403.07378)](https://arxiv.org/abs/2403.07378), "
        "[Yuan et al. 2023, ASVD (arXiv:2312.05821)](https://arxiv.org/abs/2312.05821), "
        "[Hsu et al. 2022, FWSVD (arXiv:2207.00112)](https://arxiv.org/abs/2207.00112)"
    )

    technique: Literal["svd"] = "svd"
    by: Literal["kept", "energy", "rank"] = option(
        "kept", "What you give; the rank of each layer follows from it.", title="Ranks follow from", words=BY
    )
    kept: float = option(**KEPT)
    energy: float = option(**ENERGY)
    rank: int = option(
        32, "Directions that are left in every layer. At or above the break-even rank the factors take more than the matrix; at full rank it stays.",
        title="Rank", ge=1, le=65536, stops=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024), when={"by": ["rank"]},
    )  # fmt: skip
    scope: Literal["layer", "global"] = option(
        "layer", "Whether each layer keeps that share, or all together, so that some keep more than others (water-filling over singular values).",
        title="Share of (scope)", when={"by": ["kept", "energy"]}, words={"layer": "each layer", "global": "all layers together (global)"},
    )  # fmt: skip
    solver: Literal["exact", "randomized"] = option(
        "exact", "Exact: all singular values (LAPACK). Randomized: a few more than are kept, found by multiplying with random vectors; quicker on "
        "large matrices, a little worse.",
        title="Solver", advanced=True,
    )  # fmt: skip
    iterations: int = option(
        2, "Times the random vectors are multiplied by the matrix again; each brings the result nearer to the exact one.", title="Power iterations",
        advanced=True, ge=0, le=10, when={"solver": ["randomized"]},
    )  # fmt: skip
    factors: Literal["model", "float32", "bfloat16", "float16"] = option(**FACTORS)

    @property
    def size_is_at_most(self) -> bool:
        return self.by == "energy" or (self.by == "kept" and self.scope == "global")

    def label(self) -> str:
        asked = {"kept": f"{100 * self.kept:g} % kept", "energy": f"{100 * self.energy:g} % of the energy", "rank": f"rank {self.rank}"}[self.by]
        shared = " of all layers" if self.scope == "global" and self.by != "rank" else ""
        white = {"none": "", "asvd": ", ASVD", "svd-llm": ", whitened", "fisher": ", Fisher"}[self.whitening]
        return f"SVD {asked}{shared}{white}" + (", randomized" if self.solver == "randomized" else "")


class Kernels(LowRank):
    """What the methods for convolutions share."""

    treats: ClassVar[tuple[LayerKind, ...]] = ("conv2d",)
    factors: Literal["model", "float32", "bfloat16", "float16"] = option(**FACTORS)

    @property
    def trains(self) -> bool:
        return self.recovery > 0

    @property
    def recovering(self) -> str:
        """What a label says of it."""
        return f", {self.recovery} steps of training" if self.trains else ""


class Tucker(Kernels):
    title: ClassVar[str] = "Tucker-2"
    kind: ClassVar[str] = "Convolutions"
    summary: ClassVar[str] = "Write a convolution as three: fewer channels in, a small kernel, the channels out again."
    idea: ClassVar[str] = (
        "A kernel has four axes: outputs, inputs, height and width. Tucker-2 finds the strongest directions of the first two and keeps the last "
        "two. What runs is a 1 x 1 convolution that mixes the inputs into a few, the small core kernel on those, and a 1 x 1 convolution to all "
        "outputs. Both ranks are found in turns, each for the other (higher-order orthogonal iteration)."
    )
    formula: ClassVar[str] = (
        r"\begin{gathered} \hat W_{oihw} = \sum_{p=1}^{r_o} \sum_{q=1}^{r_i} A_{op}\; G_{pqhw}\; B_{iq} \\[4pt]"
        r" r_i\,i + r_i\,r_o\,hw + r_o\,o \;<\; o\,i\,hw \end{gathered}"
    )
    fails: ClassVar[str] = (
        "1 x 1 kernels are matrices already, so they stay as they are here: use SVD. Three layers need three passes over memory, so a small "
        "convolution may run no faster. Without training afterwards (recovery), accuracy falls early."
    )
    paper: ClassVar[str] = (
        "[Kim et al. 2015, Compression of Deep CNNs for Fast and Low Power Mobile Applications (arXiv:1511.06530)](https://arxiv.org/abs/1511.06530)"
    )

    technique: Literal["tucker"] = "tucker"
    by: Literal["kept", "energy", "rank"] = option("kept", "What you give; both ranks follow from it.", title="Ranks follow from", words=BY)
    kept: float = option(**KEPT | {"default": 0.5})
    energy: float = option(**ENERGY | {"description": "Share of the squared singular values that is left along outputs, and likewise along inputs."})
    rank_out: int = option(16, "Directions left among the outputs.", title="Output rank", ge=1, le=65536, stops=(1, 2, 4, 8, 16, 32, 64, 128, 256),
                           when={"by": ["rank"]})  # fmt: skip
    rank_in: int = option(16, "Directions left among the inputs.", title="Input rank", ge=1, le=65536, stops=(1, 2, 4, 8, 16, 32, 64, 128, 256),
                          when={"by": ["rank"]})  # fmt: skip
    iterations: int = option(50, "Most rounds of alternating improvement (higher-order orthogonal iteration).", title="Rounds", advanced=True,
                             ge=1, le=1000)  # fmt: skip
    recovery: int = recovery_option()
    rate: float = rate_option(1e-3, advanced=True)
    batch: int = batch_option(32)

    @property
    def size_is_at_most(self) -> bool:
        return self.by == "energy"

    def label(self) -> str:
        ranks = f"ranks {self.rank_out} and {self.rank_in}"
        asked = {"kept": f"{100 * self.kept:g} % kept", "energy": f"{100 * self.energy:g} % of the energy", "rank": ranks}[self.by]
        return f"Tucker-2 {asked}{self.recovering}"


class CP(Kernels):
    title: ClassVar[str] = "CP"
    kind: ClassVar[str] = "Convolutions"
    summary: ClassVar[str] = "Write a convolution as four thin ones: mix, down, across, mix."
    idea: ClassVar[str] = (
        "The kernel becomes a sum of R terms, each a product of four vectors: along outputs, inputs, height and width (**CP**, canonical polyadic). "
        "What runs is a 1 x 1 convolution to R channels, for each channel a column of weights and then a row of them (depthwise), and a 1 x 1 "
        "convolution to the outputs. No formula gives the best sum: one axis is solved for after the other, again and again."
    )
    formula: ClassVar[str] = (
        r"\begin{gathered} \hat W_{oihw} = \sum_{k=1}^{R} A_{ok}\, B_{ik}\, C_{hk}\, D_{wk} \\[4pt] R\,(o + i + h + w) \;<\; o\,i\,hw \end{gathered}"
    )
    fails: ClassVar[str] = (
        "Terms can grow large and cancel each other, which makes large ranks unstable and training afterwards hard: Tucker-2 is the calmer choice. "
        "Depthwise layers are light in arithmetic and heavy on memory."
    )
    paper: ClassVar[str] = (
        "[Lebedev et al. 2014, Speeding-up CNNs Using Fine-tuned CP-Decomposition (arXiv:1412.6553)](https://arxiv.org/abs/1412.6553)"
    )

    technique: Literal["cp"] = "cp"
    by: Literal["kept", "rank"] = option("kept", "What you give; the number of terms follows from it.", title="Terms follow from",
                                         words={"kept": "the parameters kept", "rank": "their number itself (rank)"})  # fmt: skip
    kept: float = option(**KEPT | {"default": 0.5})
    rank: int = option(32, "Terms of the sum.", title="Rank", ge=1, le=4096, stops=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512), when={"by": ["rank"]})
    iterations: int = option(100, "Most rounds of solving for one axis after the other (alternating least squares).", title="Rounds", advanced=True,
                             ge=1, le=1000)  # fmt: skip
    recovery: int = recovery_option()
    rate: float = rate_option(1e-3, advanced=True)
    batch: int = batch_option(32)

    def label(self) -> str:
        return f"CP {f'{100 * self.kept:g} % kept' if self.by == 'kept' else f'rank {self.rank}'}{self.recovering}"


class LowRankCorrection(Whitened):
    leaves: ClassVar[Made] = "codes"
    title: ClassVar[str] = "Low-rank correction"
    kind: ClassVar[str] = "Matrices"
    summary: ClassVar[str] = "Round a weight to a few bits, and add two thin matrices that make up for the worst of it."
    idea: ClassVar[str] = (
        "Rounding leaves an error behind, and the error is a matrix like any other: its strongest directions fit into two thin matrices in full "
        "precision. **Round first** and correct what was lost, weighed by the data (EoRA); or take the strongest directions out **first** and round "
        "what is left. More than one turn takes both in turns, each for what the other leaves (LoftQ, which begins by rounding)."
    )
    formula: ClassVar[str] = (
        r"\begin{gathered} Q = \mathrm{quant}(W - LR) \\[4pt] LR\,S = \mathrm{SVD}_r\left((W - Q)\,S\right), \qquad S S^\top = \tfrac1N X^\top X"
        r" \end{gathered}"
    )
    fails: ClassVar[str] = (
        "The error of rounding has few strong directions: at 4 bits a correction gains little for its bytes, at 2 and 3 it pays. Smaller groups "
        "are the competing way to spend them."
    )
    paper: ClassVar[str] = (
        "[Liu et al. 2024, EoRA (arXiv:2410.21271)](https://arxiv.org/abs/2410.21271), "
        "[Li et al. 2023, LoftQ (arXiv:2310.08659)](https://arxiv.org/abs/2310.08659)"
    )

    technique: Literal["low-rank-correction"] = "low-rank-correction"
    bits: int = option(3, "Bits of one rounded weight.", title="Bits", ge=2, le=8)
    group_size: int = option(
        32, "How many neighbouring weights of a row share one scale; 0 means the whole row.", title="Weights that share one scale (group size)", ge=0,
        le=65536, stops=(0, 8, 16, 32, 64, 128, 256, 512),
    )  # fmt: skip
    rank: int = option(8, "Directions of the correction.", title="Rank", ge=1, le=65536, stops=(1, 2, 4, 8, 16, 32, 64, 128, 256))
    order: Literal["quantize-first", "low-rank-first"] = option(
        "quantize-first", "Whether all of the weight is rounded and then corrected, or its strongest directions are taken out before.",
        title="What comes first (order)", words={"quantize-first": "rounding, then the correction", "low-rank-first": "the strongest directions"},
    )  # fmt: skip
    turns: int = option(
        1, "Times that rounding and correcting take turns, where every weight counts alike.", title="Turns", ge=1, le=20, stops=(1, 2, 3, 5, 10, 20),
        when={"whitening": ["none"]},
    )  # fmt: skip
    factors: Literal["model", "float32", "bfloat16", "float16"] = option(**FACTORS)

    @property
    def rounds(self) -> int:
        """How often both are found; weighed errors are corrected once, since rounding does not weigh them."""
        return self.turns if self.whitening == "none" else 1

    def rounding(self) -> RoundToNearest:
        shared = {"granularity": "group", "group_size": self.group_size} if self.group_size else {"granularity": "channel"}
        return RoundToNearest(bits=self.bits, **shared)

    @property
    def group(self) -> int:
        return self.group_size

    @property
    def may_change_nothing(self) -> bool:
        return False

    def label(self) -> str:
        first = "" if self.order == "quantize-first" else ", low rank first"
        turns = f", {self.rounds} turns" if self.rounds > 1 else ""
        return f"Rounding {self.bits}-bit + rank {self.rank}{first}{turns}"
