"""Pruning: weights that are set to zero, and how the rest is stored."""

import re
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, model_validator

from engine.catalog.technique import Family, Made, Needs, Technique, option

PATTERN = re.compile(r"(\d{1,3}):(\d{1,3})")
SCOPE = {
    "description": "Among which weights the least important are looked for: those of one row (output channel), of one layer, or of all layers, so "
    "that some layers lose more than others.",
    "title": "Removed share of (scope)", "when": {"pattern": [""]},
    "words": {"row": "each row of a layer", "layer": "each layer", "global": "all layers together (global)"},
}  # fmt: skip
Storage = Literal["smallest", "dense", "bitmask", "csr", "n-of-m"]


def n_of_m(pattern: str) -> tuple[int, int]:
    """The two numbers of a pattern such as "2:4". Raises ValueError for any other text."""
    found = PATTERN.fullmatch(pattern.strip())
    if not found:
        raise ValueError(f"{pattern[:40]!r} is no pattern; write N:M such as 2:4 (of every 4 neighbours 2 stay), or leave it empty")
    kept, of = int(found[1]), int(found[2])
    if not 1 <= kept < of:
        raise ValueError(f"{pattern} asks to keep {kept} of every {of} weights; N must be at least 1 and less than M, as in 2:4")
    return kept, of


def checked(pattern: str) -> str:
    if pattern:
        n_of_m(pattern)
    return pattern


class Pruning(Technique):
    """What the methods that set single weights to zero share."""

    family: ClassVar[Family] = "pruning"
    takes: ClassVar[tuple[Made, ...]] = ("dense", "fewer")
    leaves: ClassVar[Made] = "zeros"

    pattern: Annotated[str, AfterValidator(checked)] = option(
        "",
        "N:M keeps N of every M neighbouring weights of a row, so that hardware can skip the rest: 2:4 is what NVIDIA's tensor cores multiply. "
        "Empty: any weight may go.",
        title="Pattern (N:M)",
        choices=("", "2:4", "4:8", "1:4"),
        words={"": "none: any weight may go"},
    )
    sparsity: float = option(
        0.5, "Share of the weights that become zero. 0 leaves every weight as it is.", title="Weights removed (sparsity)", ge=0, le=0.99,
        when={"pattern": [""]},
    )  # fmt: skip
    scope: Literal["row", "layer", "global"] = option("layer", **SCOPE)
    storage: Storage = option(
        "smallest",
        "How what is left is written: the smallest of all ways, as it was with its zeros, a bit for each weight and the weights left (bitmask), "
        "or the column of each weight left (CSR). With a pattern also the places inside each M.",
        title="Stored as",
        advanced=True,
        words={
            "smallest": "whatever is smallest", "dense": "dense, zeros and all", "bitmask": "bitmask and values", "csr": "columns by row (CSR)",
            "n-of-m": "places in every M (N:M)",
        },
    )  # fmt: skip
    values: Literal["model", "float32", "bfloat16", "float16"] = option(
        "model", "Number format of the weights that are left; by default the one they had in the file.", title="Format of what is left",
        advanced=True,
        words={"model": "as in the model's file"},
    )  # fmt: skip

    @model_validator(mode="after")
    def fitting_storage(self) -> Self:
        if self.storage == "n-of-m" and not self.pattern:
            raise ValueError("storage n-of-m needs a pattern such as 2:4; name one, or choose another storage")
        return self

    @property
    def removed(self) -> float:
        """Share of the weights that become zero."""
        if not self.pattern:
            return self.sparsity
        kept, of = n_of_m(self.pattern)
        return 1 - kept / of

    @property
    def may_change_nothing(self) -> bool:
        return self.removed == 0

    def label(self) -> str:
        where = self.pattern or f"{100 * self.sparsity:g} %" + {"row": " of each row", "layer": "", "global": " of all layers"}[self.scope]
        return f"{self.title} {where}"


class Random(Pruning):
    title: ClassVar[str] = "Random pruning"
    kind: ClassVar[str] = "Needs no data"
    summary: ClassVar[str] = "Remove weights by lot: what every other method has to beat."
    idea: ClassVar[str] = (
        "Which weights go is drawn by lot. Nobody would ship such a model; it shows how much a choice of weights is worth, and how much a network "
        "stands at all."
    )
    formula: ClassVar[str] = r"\hat w_i = m_i\, w_i, \qquad m_i \sim \mathrm{Bernoulli}(1-s)"
    fails: ClassVar[str] = "Nearly always, already at small shares, and with every draw a little differently."
    paper: ClassVar[str] = "[Blalock et al. 2020, What is the State of Neural Network Pruning? (arXiv:2003.03033)](https://arxiv.org/abs/2003.03033)"

    technique: Literal["random"] = "random"
    draw: int = option(0, "Another number, another draw.", title="Draw", advanced=True, ge=0, le=2**31 - 1, stops=(0, 1, 2, 3, 4))


class Magnitude(Pruning):
    title: ClassVar[str] = "Magnitude pruning (L1)"
    kind: ClassVar[str] = "Needs no data"
    summary: ClassVar[str] = "Remove the weights that are nearest to zero."
    idea: ClassVar[str] = (
        "A weight near zero adds little to the sum it stands in, so it may go. That takes no data and no time, and is a strong baseline where the "
        "network is trained on afterwards. What it cannot see: a small weight on a strong input may matter more than a large one on a silent input."
    )
    formula: ClassVar[str] = r"S_{ij} = |W_{ij}|, \qquad \hat W = W \odot [\,S > \tau\,]"
    fails: ClassVar[str] = (
        "Without training afterwards, language models break near 50 %: a few inputs are far louder than the rest, and their weights are no larger. "
        "Wanda looks at them."
    )
    paper: ClassVar[str] = "[Han et al. 2015, Learning both Weights and Connections (arXiv:1506.02626)](https://arxiv.org/abs/1506.02626)"

    technique: Literal["magnitude"] = "magnitude"


class Wanda(Pruning):
    title: ClassVar[str] = "Wanda"
    kind: ClassVar[str] = "Looks at data"
    needs: ClassVar[Needs] = "range"
    summary: ClassVar[str] = "Remove the weights whose product with their usual input is least."
    idea: ClassVar[str] = (
        "What a weight adds is its size times its input's. Calibration text tells how strong each input channel is; weights are compared inside one "
        "row, whose products are added up. One pass over a little text, no training, no change to the weights that stay."
    )
    formula: ClassVar[str] = r"S_{ij} = |W_{ij}|\cdot \lVert X_j \rVert_2"
    fails: ClassVar[str] = "The weights that stay do not make up for those that went: at high shares and for 2:4, SparseGPT comes out better."
    paper: ClassVar[str] = "[Sun et al. 2023, Wanda (arXiv:2306.11695)](https://arxiv.org/abs/2306.11695)"

    technique: Literal["wanda"] = "wanda"
    scope: Literal["row", "layer", "global"] = option("row", **SCOPE)


class SparseGPT(Pruning):
    title: ClassVar[str] = "SparseGPT"
    kind: ClassVar[str] = "Second order"
    needs: ClassVar[Needs] = "gram"
    in_step: ClassVar[bool] = True
    summary: ClassVar[str] = "Remove weights column by column, and let those still to come make up for what was lost."
    idea: ClassVar[str] = (
        "As in GPTQ, calibration text gives a matrix H of how the inputs of a layer go together. A weight's importance is what the output would lose "
        "if it went and all others made up for it as well as they can (**Optimal Brain Surgeon**). Columns are worked off from left to right: some "
        "of their weights become zero, and the error is pushed onto the columns after them."
    )
    formula: ClassVar[str] = (
        r"\begin{gathered} S_{ij} = \frac{W_{ij}^2}{[H^{-1}]_{jj}} \\[4pt] e = \frac{w_j - m_j w_j}{[H^{-1}]_{jj}} \\[4pt]"
        r" w_{j+1:} \mathrel{-}= e\,[H^{-1}]_{j,\,j+1:} \end{gathered}"
    )
    fails: ClassVar[str] = (
        "It fits the calibration text, and costs a matrix inversion for each layer input. Beyond 60 % the model needs training afterwards."
    )
    paper: ClassVar[str] = "[Frantar & Alistarh 2023, SparseGPT (arXiv:2301.00774)](https://arxiv.org/abs/2301.00774)"

    technique: Literal["sparsegpt"] = "sparsegpt"
    block_columns: int = option(
        128, "Columns among which the weights to go are chosen at once, and after which the others are corrected.", title="Columns at once",
        advanced=True, ge=1, le=65536, stops=(32, 64, 128, 256, 512),
    )  # fmt: skip
    damping: float = option(
        0.01, "Added to the diagonal of H, as a share of its mean, so that it can be inverted; raised by itself where that is not enough.",
        title="Damping", advanced=True, ge=0.0001, le=1, stops=(0.0001, 0.001, 0.01, 0.1, 1),
    )  # fmt: skip


class Taylor(Pruning):
    title: ClassVar[str] = "Gradient (Taylor, first order)"
    kind: ClassVar[str] = "Looks at the loss"
    needs: ClassVar[Needs] = "gradients"
    summary: ClassVar[str] = "Remove the weights whose removal changes the loss least, by its slope."
    idea: ClassVar[str] = (
        "The slope (gradient) of the loss says how it changes when a weight moves a little. Taken all the way to zero, the change is about "
        "slope times weight. It is summed over calibration text; weights whose product is least go first."
    )
    formula: ClassVar[str] = r"S_{ij} = \left|\, W_{ij}\, \frac{\partial L}{\partial W_{ij}} \right|"
    fails: ClassVar[str] = (
        "A trained model sits where slopes cancel out: what is left of them is mostly noise unless there is plenty of data. It needs the whole model "
        "in memory with its slopes."
    )
    paper: ClassVar[str] = (
        "[Molchanov et al. 2019, Importance Estimation for Neural Network Pruning (arXiv:1906.10771)](https://arxiv.org/abs/1906.10771)"
    )

    technique: Literal["taylor"] = "taylor"


class OptimalBrainDamage(Pruning):
    title: ClassVar[str] = "Optimal Brain Damage"
    kind: ClassVar[str] = "Second order"
    needs: ClassVar[Needs] = "gradients"
    summary: ClassVar[str] = "Remove the weights whose removal changes the loss least, by its curvature."
    idea: ClassVar[str] = (
        "In a trained model the slopes are near zero, so the **curvature** decides: how fast the loss rises when a weight leaves its place. Its "
        "diagonal is estimated by the mean square of each example's slope (the **Fisher** information), and weights are taken to matter each by "
        "itself."
    )
    formula: ClassVar[str] = (
        r"S_{ij} = \tfrac12\, F_{ij}\, W_{ij}^2, \qquad F_{ij} = \frac1N \sum_n \left(\frac{\partial L_n}{\partial W_{ij}}\right)^2"
    )
    fails: ClassVar[str] = (
        "Weights that stand in for each other are judged as if each stood alone. It needs one backward pass for each example and the whole model "
        "in memory with its slopes."
    )
    paper: ClassVar[str] = (
        "[LeCun, Denker & Solla 1989, Optimal Brain Damage](https://papers.nips.cc/paper/1989/hash/6c9882bbac1c7093bd25041881277658-Abstract.html)"
    )

    technique: Literal["optimal-brain-damage"] = "optimal-brain-damage"
