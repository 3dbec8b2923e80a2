"""Quantization that looks at data: what flows into a layer decides how its weights are rounded."""

from typing import ClassVar, Literal

from engine.catalog.quantization import RoundToNearest
from engine.catalog.technique import Family, Needs, Technique, option

BITS = {"default": 4, "description": "Bits of one stored weight.", "title": "Bits", "ge": 2, "le": 8}
GROUP_SIZE = {
    "default": 32, "title": "Weights that share one scale (group size)", "ge": 0, "le": 65536, "stops": (0, 8, 16, 32, 64, 128, 256, 512),
    "description": "How many neighbouring weights of a row share one scale; the last group of a row may be shorter. 0 means the whole row.",
}  # fmt: skip
SCHEME = {
    "default": "symmetric", "title": "Grid (scheme)",
    "description": "Symmetric grids are centred on zero; asymmetric ones store a zero point and fit lopsided weights.",
    "words": {"symmetric": "centred on zero (symmetric)", "asymmetric": "with a zero point (asymmetric)"},
}  # fmt: skip


class OnAGrid(Technique):
    """What the methods that end on an even grid of groups share."""

    family: ClassVar[Family] = "quantization"
    bits: int = option(**BITS)
    group_size: int = option(**GROUP_SIZE)
    scheme: Literal["symmetric", "asymmetric"] = option(**SCHEME)

    def rounding(self) -> RoundToNearest:
        """The grid itself."""
        shared = {"granularity": "group", "group_size": self.group_size} if self.group_size else {"granularity": "channel"}
        return RoundToNearest(bits=self.bits, scheme=self.scheme, **shared)

    @property
    def group(self) -> int:
        return self.group_size

    def label(self) -> str:
        shared = f"groups of {self.group_size}" if self.group_size else "per channel"
        return ", ".join([f"{self.title} {self.bits}-bit", shared, *([self.scheme] if self.scheme == "asymmetric" else [])])


class GPTQ(OnAGrid):
    title: ClassVar[str] = "GPTQ"
    kind: ClassVar[str] = "Looks at data"
    needs: ClassVar[Needs] = "gram"
    in_step: ClassVar[bool] = True
    summary: ClassVar[str] = "Round one column after another and push each rounding error onto the columns still to come."
    idea: ClassVar[str] = (
        "Calibration text shows which directions of a layer's input matter: their products add up to a matrix H (the **Hessian** of the layer's "
        "squared output error). Columns are rounded one by one; what each loses is made up for by moving the columns that are not rounded "
        "yet, as far "
        "as H says they can stand in. The grid is the same as in plain rounding: only the choice of codes is better."
    )
    formula: ClassVar[str] = (
        r"\begin{gathered} H = 2XX^\top + \lambda I \\[4pt] e = \frac{w_j - \mathrm{quant}(w_j)}{[H^{-1}]_{jj}} \\[4pt]"
        r" w_{j+1:} \mathrel{-}= e\,[H^{-1}]_{j,\,j+1:} \end{gathered}"
    )
    fails: ClassVar[str] = (
        "It fits the calibration text: too few samples, or text of another kind, and it fits noise. It is greedy, so single layers may come "
        "out worse "
        "than plain rounding, though the sum rarely does."
    )
    paper: ClassVar[str] = "[Frantar et al. 2022, GPTQ (arXiv:2210.17323)](https://arxiv.org/abs/2210.17323)"

    technique: Literal["gptq"] = "gptq"
    activation_order: bool = option(
        False,
        "Round the columns with the strongest inputs first, while there is most left to make up with.",
        title="Strongest inputs first (activation order)",
    )
    static_groups: bool = option(
        True,
        "Choose all scales before rounding, and keep groups where they are in the row. Otherwise a group's scale is chosen when its first column "
        "is rounded; with the strongest inputs first, groups then follow that order, and it is stored too.",
        title="Scales chosen beforehand (static groups)",
        advanced=True,
    )
    damping: float = option(
        0.01,
        "Added to the diagonal of H, as a share of its mean, so that it can be inverted; raised by itself where that is not enough.",
        title="Damping",
        advanced=True,
        ge=0.0001,
        le=1,
        stops=(0.0001, 0.001, 0.01, 0.1, 1),
    )

    def label(self) -> str:
        return super().label() + (", activation order" if self.activation_order else "")


class AWQ(OnAGrid):
    title: ClassVar[str] = "AWQ"
    kind: ClassVar[str] = "Looks at data"
    needs: ClassVar[Needs] = "gram"
    folds: ClassVar[bool] = True
    summary: ClassVar[str] = "Make the weights behind strong inputs larger before rounding, so that they lose less."
    idea: ClassVar[str] = (
        "A few input channels carry far larger activations than the rest: their weights are **salient**. Multiplying these weights by a scale before "
        "rounding, and dividing the inputs by it, leaves the layer as it was but rounds the salient weights more finely. The division is "
        "hidden in the layer "
        "or norm before. How strong the scales are (alpha) is searched on the calibration data, then each group's range is clipped where that helps."
    )
    formula: ClassVar[str] = (
        r"\begin{gathered} s = \overline{|X|}^{\,\alpha} \\[4pt]"
        r" \alpha^* = \arg\min_\alpha \left\lVert XW - (X/s)\,\mathrm{quant}(sW) \right\rVert \end{gathered}"
    )
    fails: ClassVar[str] = (
        "Where no layer or norm before can take the scale (after a GELU, behind a residual sum), a layer is only clipped and rounded; the "
        "layers table says which."
    )
    paper: ClassVar[str] = "[Lin et al. 2023, AWQ (arXiv:2306.00978)](https://arxiv.org/abs/2306.00978)"

    technique: Literal["awq"] = "awq"
    clip: bool = option(
        True, "Search how far each group's range should reach, on the calibration data.", title="Search the range (clipping)", advanced=True
    )
    steps: int = option(20, "How many values of alpha are tried between 0 and 1.", title="Alphas tried", advanced=True, ge=1, le=100)


class Activations(Technique):
    title: ClassVar[str] = "Weights and activations (W8A8)"
    kind: ClassVar[str] = "Activations too"
    family: ClassVar[Family] = "quantization"
    needs: ClassVar[Needs] = "range"
    summary: ClassVar[str] = "Quantize what flows into each layer too, so that its products could be done in whole numbers."
    idea: ClassVar[str] = (
        "Integer products need integers on both sides. **Dynamic** quantization looks at each input while the model runs; **static** "
        "quantization chooses one range "
        "for each layer beforehand, from calibration data, through an **observer**. A wide range rounds coarsely, a narrow one clips "
        "(saturates) the largest values."
    )
    formula: ClassVar[str] = r"y \approx s_x\, s_w \sum_k (q^x_k - z_x)\, q^w_k"
    fails: ClassVar[str] = (
        "A few channels with huge activations stretch the range for all others: SmoothQuant or LLM.int8() are made for that. "
        "Here the whole numbers are computed in floating point with the same result; a speed-up needs an integer kernel."
    )
    paper: ClassVar[str] = "[Jacob et al. 2018, Quantization and Training of Neural Networks (arXiv:1712.05877)](https://arxiv.org/abs/1712.05877)"

    technique: Literal["activations"] = "activations"
    weight_bits: int = option(8, "Bits of one stored weight; one scale for each output channel.", title="Weight bits", ge=2, le=8)
    activation_bits: int = option(8, "Bits of one activation.", title="Activation bits", ge=2, le=8)
    mode: Literal["static", "dynamic"] = option(
        "static",
        "Static: one range for each layer, from calibration data. Dynamic: a new range for each input while the model runs.",
        title="When the range is chosen",
        words={"static": "beforehand (static)", "dynamic": "while it runs (dynamic)"},
    )
    observer: Literal["min-max", "moving-average", "percentile", "mse", "entropy"] = option(
        "min-max",
        "How the range is read off the calibration data: its extremes, their running mean, a percentile, least squared error, or least loss "
        "of information (KL).",
        title="Observer",
        when={"mode": ["static"]},
        words={"min-max": "extremes (min-max)", "moving-average": "running mean of extremes (moving average)", "percentile": "a percentile",
               "mse": "least squared error (MSE)", "entropy": "least lost information (entropy)"},
    )  # fmt: skip
    percentile: float = option(
        99.99,
        "Share of activations inside the range, in percent.",
        title="Percentile",
        advanced=True,
        ge=50,
        le=100,
        when={"observer": ["percentile"]},
    )
    per: Literal["token", "tensor"] = option(
        "token",
        "Whether each token (or example of a picture model) gets a range of its own, or the whole input shares one.",
        title="One range for each",
        when={"mode": ["dynamic"]},
        words={"token": "token", "tensor": "input (tensor)"},
    )
    scheme: Literal["asymmetric", "symmetric"] = option(
        "asymmetric",
        "Asymmetric ranges have a zero point and fit activations that are mostly positive; symmetric ones are centred on zero.",
        title="Range of activations (scheme)",
        advanced=True,
        words=SCHEME["words"],
    )

    def rounding(self) -> RoundToNearest:
        """The weights' grid."""
        return RoundToNearest(bits=self.weight_bits, granularity="channel", grid="narrow")

    def label(self) -> str:
        how = f"static, {self.observer}" if self.mode == "static" else f"dynamic, per {self.per}"
        return f"W{self.weight_bits}A{self.activation_bits} {how}"


class SmoothQuant(Activations):
    title: ClassVar[str] = "SmoothQuant"
    folds: ClassVar[bool] = True
    summary: ClassVar[str] = "Shift the difficulty from activations with outliers to the weights, then quantize both."
    idea: ClassVar[str] = (
        "A few channels of the activations are so large that one range for all rounds the others away. Dividing the inputs by a scale for "
        "each channel and "
        "multiplying the weights' columns by it changes nothing in exact numbers, but flattens the activations; the division is hidden in "
        "the norm before. "
        "**Alpha** says how much of the difficulty moves to the weights. Then both are quantized."
    )
    formula: ClassVar[str] = r"s_j = \frac{\max|X_j|^{\alpha}}{\max|W_j|^{1-\alpha}}, \qquad XW = (X/s)\,(sW)"
    fails: ClassVar[str] = (
        "Only layers fed by a norm that feeds nothing else can be smoothed; models with the norm behind the residual sum (BERT) have none. "
        "With too large an "
        "alpha the weights become the hard part."
    )
    paper: ClassVar[str] = "[Xiao et al. 2022, SmoothQuant (arXiv:2211.10438)](https://arxiv.org/abs/2211.10438)"

    technique: Literal["smoothquant"] = "smoothquant"
    alpha: float = option(0.5, "How much of the difficulty moves from activations to weights: 0 none, 1 all.", title="Alpha", ge=0, le=1)
    automatic: bool = option(
        False, "Choose alpha for each norm where the expected output error is least.", title="Alpha for each layer", advanced=True
    )

    def label(self) -> str:
        return f"SmoothQuant {'automatic' if self.automatic else f'{self.alpha:g}'}, {super().label()}"
