"""Training that knows of compression: weights that learn on their grid, and adapters that make up for what was lost."""

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from engine.catalog.calibrated import Activations
from engine.catalog.courses import (
    batch_option,
    distill_weight_option,
    parts_option,
    patience_option,
    products_option,
    rate_option,
    temperature_option,
)
from engine.catalog.formats import Ternary
from engine.catalog.lowrank import FACTORS
from engine.catalog.quantization import BitsAndBytes, RoundToNearest
from engine.catalog.technique import Family, LayerKind, Made, Technique, option

WEIGHTS: tuple[Made, ...] = ("dense", "fewer", "zeros")
INPUT_BITS = {
    "title": "Bits of activations", "ge": 0, "le": 8, "stops": (0, 4, 5, 6, 7, 8),
    "description": "What flows into each layer is rounded too, to so many bits. 0: it is not.",
}  # fmt: skip
RANGE = {
    "title": "When the range of activations is chosen", "advanced": True,
    "description": "Where activations are rounded. Dynamic: anew for each token (each picture), centred on zero. Static: once for each layer, with a "
    "zero point, by an observer on what calibration data gives in the model before it is rounded; training and the stored model keep to it.",
    "words": {"dynamic": "while it runs (dynamic)", "static": "beforehand (static)"},
}  # fmt: skip
OBSERVER = {
    "title": "Observer", "advanced": True, "when": {"activation_range": ["static"]},
    "description": "How the range is read off the calibration data.",
    "words": Activations.model_fields["observer"].json_schema_extra["words"],
}  # fmt: skip


class Aware(Technique):
    """What techniques share that train a model for the form it will be stored in."""

    family: ClassVar[Family] = "training"
    trains: ClassVar[bool] = True
    counts_epochs: ClassVar[bool] = True

    steps: int = option(
        200, "Training steps, unless the recipe's training counts epochs.", title="Training steps", ge=1, le=100_000,
        stops=(20, 50, 100, 200, 300, 500, 1000, 2000, 5000),
    )  # fmt: skip
    rate: float = rate_option(1e-3)
    batch: int = batch_option(8)
    parts: int = parts_option()
    patience: int = patience_option(looks="")
    products: Literal["auto", "float32", "bfloat16"] = products_option("float32")
    look_every: int = option(
        20, "Training steps from one look at held-out examples to the next. The best state of all looks, the first included, is what is stored.",
        title="Steps between looks", advanced=True, ge=1, le=100_000, stops=(5, 10, 20, 50, 100, 200),
    )  # fmt: skip
    distill_weight: float = distill_weight_option()
    temperature: float = temperature_option()

    @property
    def pages(self) -> bool:
        """Whether what the optimizer remembers moves to main memory where a GPU's does not suffice."""
        return False


class QAT(Aware, RoundToNearest):
    title: ClassVar[str] = "Quantization-aware (QAT)"
    kind: ClassVar[str] = "Learns on its grid"
    takes: ClassVar[tuple[Made, ...]] = (*WEIGHTS, "codes")
    summary: ClassVar[str] = "Round in every forward pass, and let the weights learn to live with it."
    idea: ClassVar[str] = (
        "While it trains, the model computes with **rounded** weights; what learns are the whole ones behind them. Rounding has no slope, so the "
        "backward pass pretends that it was not there (**straight-through estimator**). Weights drift to where rounding hurts least, and what is "
        "stored in the end is exactly what was trained. The step size of the grid may learn too (**LSQ**). After a quantizer, training begins "
        "at the rounded weights that it has left."
    )
    formula: ClassVar[str] = (
        r"\begin{gathered} \hat w = s\left(\mathrm{clip}\left(\mathrm{round}(w/s) + z\right) - z\right) \\[4pt]"
        r" \frac{\partial \hat w}{\partial w} := \begin{cases} 1 & \text{inside the range} \\ 0 & \text{outside} \end{cases} \\[4pt]"
        r" \frac{\partial \hat w}{\partial s} = g \begin{cases} \mathrm{round}(w/s) - w/s & \text{inside} \\"
        r" q_{\min} - z,\ q_{\max} - z & \text{outside} \end{cases} \\[4pt] g = 1 / \sqrt{N q_{\max}} \end{gathered}"
    )
    fails: ClassVar[str] = (
        "It takes training data like the model's own, and the memory of training. At 8 bits there is nothing to win back, at 4 little. On little "
        "data a model learns that data: watch the held-out examples."
    )
    paper: ClassVar[str] = (
        "[Jacob et al. 2018 (arXiv:1712.05877)](https://arxiv.org/abs/1712.05877); straight-through: "
        "[Bengio et al. 2013 (arXiv:1308.3432)](https://arxiv.org/abs/1308.3432); learned step size: "
        "[Esser et al. 2020, LSQ (arXiv:1902.08153)](https://arxiv.org/abs/1902.08153)"
    )

    technique: Literal["qat"] = "qat"
    bits: int = option(3, "Bits of one stored weight.", title="Bits", ge=2, le=8)
    learn_scales: bool = option(
        False, "The step size of each group learns with the weights (LSQ), from the one that rounding would choose; zero points stay.",
        title="Step sizes learn (LSQ)",
    )  # fmt: skip
    activation_bits: int = option(0, **INPUT_BITS)
    activation_range: Literal["dynamic", "static"] = option("dynamic", **RANGE)
    observer: Literal["min-max", "moving-average", "percentile", "mse", "entropy"] = option("min-max", **OBSERVER)
    pull: float = option(
        0.0, "Price of a weight's mean squared distance to its level, in nats for a whole step. Above 0, weights settle on their levels.",
        title="Pulled to their levels (regularizer)", advanced=True, ge=0, le=1000, stops=(0, 0.01, 0.1, 1, 10, 100),
    )  # fmt: skip

    @model_validator(mode="after")
    def rounds_what_can_be(self) -> Self:
        refuse_one_bit(self.activation_bits)
        if self.learn_scales and self.scales == "power-of-two":
            raise ValueError("learn_scales moves scales, and scales power-of-two holds them fast; set scales to free, or learn_scales to false")
        return self

    @property
    def may_change_nothing(self) -> bool:
        """After a quantizer with the same grid, training may find nothing better than where it began."""
        return True

    def label(self) -> str:
        return ", ".join([super().label().replace("Rounding", "QAT"), *["LSQ"] * self.learn_scales, *said_of_inputs(self)])


class BitNet(Aware, Ternary):
    title: ClassVar[str] = "Ternary and binary (BitNet)"
    kind: ClassVar[str] = "Learns on its grid"
    takes: ClassVar[tuple[Made, ...]] = (*WEIGHTS, "codes")
    summary: ClassVar[str] = "Three values for each weight, or two, and training that makes them enough."
    idea: ClassVar[str] = (
        "In every forward pass each weight is −1, 0 or 1 times its layer's or row's mean magnitude (**absmean**), or only its sign; activations are "
        "8-bit numbers with one range for each token. The whole weights behind them learn as in quantization-aware training. Large models trained "
        "like this **from the start** come close to full precision at 1.58 bits a weight; starting from a trained checkpoint, the first steps "
        "repair what rounding to three values broke."
    )
    formula: ClassVar[str] = (
        r"\begin{gathered} \gamma = \frac{1}{n} \sum |w|, \qquad"
        r" \hat w = \gamma \cdot \mathrm{clip}\left(\mathrm{round}(w/\gamma), -1, 1\right), \qquad \frac{\partial \hat w}{\partial w} := 1 \\[4pt]"
        r" \hat x = \frac{\max|x|}{127}\, \mathrm{round}\left(\frac{127\,x}{\max|x|}\right) \end{gathered}"
    )
    fails: ClassVar[str] = (
        "A few hundred steps are not the training of the paper: a checkpoint is repaired in part, and a model from random weights learns what a few "
        "hundred steps teach. Norms before each layer, which the paper adds, are not: the architecture stays as it is."
    )
    paper: ClassVar[str] = (
        "[Ma et al. 2024, BitNet b1.58 (arXiv:2402.17764)](https://arxiv.org/abs/2402.17764); "
        "[Wang et al. 2023, BitNet (arXiv:2310.11453)](https://arxiv.org/abs/2310.11453)"
    )

    technique: Literal["bitnet"] = "bitnet"
    start: Literal["checkpoint", "random"] = option(
        "checkpoint", "Where training begins: at the model's weights, or at random ones for every layer treated; embeddings stay as they are.",
        title="Begins at", words={"checkpoint": "the model's weights", "random": "random weights (from the start)"},
    )  # fmt: skip
    activation_bits: int = option(8, **INPUT_BITS)
    activation_range: Literal["dynamic", "static"] = option("dynamic", **RANGE)
    observer: Literal["min-max", "moving-average", "percentile", "mse", "entropy"] = option("min-max", **OBSERVER)

    @model_validator(mode="after")
    def rounds_what_can_be(self) -> Self:
        refuse_one_bit(self.activation_bits)
        return self

    @property
    def may_change_nothing(self) -> bool:
        """After ternary rounding, training may find nothing better."""
        return True

    def label(self) -> str:
        return ", ".join([f"BitNet {self.values}", self.shared(), *said_of_inputs(self), *["from random weights"] * (self.start == "random")])


def said_of_inputs(how: QAT | BitNet) -> list[str]:
    static = "static " if how.activation_range == "static" else ""
    return [f"{static}{how.activation_bits}-bit activations"] if how.activation_bits else []


def refuse_one_bit(bits: int) -> None:
    if bits == 1:
        raise ValueError("activation_bits is 1, which leaves no number but zero; give 2 to 8, or 0 to leave activations as they are")


class Adapters(Aware):
    """What the techniques share that leave weights alone and train two thin matrices beside them."""

    kind: ClassVar[str] = "Adapters"
    treats: ClassVar[tuple[LayerKind, ...]] = ("linear", "conv1d", "conv2d")

    rank: int = option(8, "Directions of each adapter.", title="Rank", ge=1, le=65536, stops=(1, 2, 4, 8, 16, 32, 64, 128, 256))
    alpha: float = option(
        16.0, "An adapter counts alpha / rank times.", title="Alpha", ge=0.01, le=65536, stops=(1, 2, 4, 8, 16, 32, 64, 128),
    )  # fmt: skip
    dropout: float = option(0.0, "Share of an adapter's inputs that are left out at each step.", title="Dropout", advanced=True, ge=0, le=0.9)
    where: Literal["all", "attention", "feed-forward"] = option(
        "all", "Which layers get adapters; the others stay as they are.", title="Layers with adapters",
        words={"all": "all that the recipe treats", "attention": "attention", "feed-forward": "feed-forward"},
    )  # fmt: skip
    adapters: Literal["model", "float32", "bfloat16", "float16"] = option(
        **FACTORS | {"title": "Format of the adapters", "description": "Number format of the adapters; by default the one of the model's file."}
    )

    @property
    def may_change_nothing(self) -> bool:
        """Adapters begin at nothing, and training may find nothing better."""
        return True


class LoRA(Adapters):
    title: ClassVar[str] = "Low-rank adapters (LoRA)"
    summary: ClassVar[str] = "Recover a compressed model: its weights stay as they are stored, and two thin matrices learn beside each."
    idea: ClassVar[str] = (
        "Pruned, rounded or factorized weights stay as they are; beside each layer's weight a product of two thin matrices learns, **A** from random "
        "numbers and **B** from zeros, so that training begins where compression ended. Few numbers learn, so little data is enough to win back "
        "much of the quality. On whole weights the product may be added in (**merged**); beside codes it is stored apart."
    )
    formula: ClassVar[str] = (
        r"\begin{gathered} y = \hat W x + \frac{\alpha}{r}\, B A\, x, \qquad B \in \mathbb{R}^{m \times r},\ A \in \mathbb{R}^{r \times n} \\[4pt]"
        r" W' = W + m \odot \frac{\alpha}{r} B A \quad \text{(merged; } m \text{ keeps zeros)} \end{gathered}"
    )
    fails: ClassVar[str] = (
        "Adapters cost bytes and a little time in each pass: at rank r, r (m + n) numbers for a layer of m x n. What a low rank cannot express, such "
        "as a quarter of all weights missing here and there, comes back only in part. Data unlike the model's own teaches it something else."
    )
    paper: ClassVar[str] = "[Hu et al. 2021, LoRA (arXiv:2106.09685)](https://arxiv.org/abs/2106.09685)"

    technique: Literal["lora"] = "lora"
    merge: bool = option(False, "Add the adapters to the weights, which must be whole: neither codes nor factors.", title="Merge into the weights")
    keep_zeros: bool = option(
        True, "Where a weight was removed, nothing is added: while training too, and without dropout.", title="Zeros stay zero",
        when={"merge": [True]},
    )  # fmt: skip

    @model_validator(mode="after")
    def drops_what_it_may(self) -> Self:
        if self.merge and self.keep_zeros and self.dropout:
            raise ValueError("an adapter under a mask has no inputs of its own to drop; set dropout to 0, or keep_zeros to false")
        return self

    @property
    def takes(self) -> tuple[Made, ...]:
        return WEIGHTS if self.merge else (*WEIGHTS, "factors", "codes")

    @property
    def leaves(self) -> Made:
        return "dense" if self.merge else "adapters"

    def label(self) -> str:
        where = "" if self.where == "all" else f", {self.where}"
        return f"LoRA rank {self.rank}{where}{', merged' if self.merge else ''}"


class QLoRA(Adapters):
    title: ClassVar[str] = "QLoRA"
    leaves: ClassVar[Made] = "adapters"
    summary: ClassVar[str] = "NF4 weights that stay as they are, and adapters that learn what rounding lost."
    idea: ClassVar[str] = (
        "Weights become **NF4** with double quantization, 4.13 bits each, and never change again. Adapters beside them learn in full precision: they "
        "begin by repairing what rounding lost. It is bitsandbytes' storage and LoRA in one step."
    )
    formula: ClassVar[str] = r"y = \mathrm{dequant}(c_1, c_2, W^{\mathrm{NF4}})\, x + \frac{\alpha}{r}\, B A\, x"
    fails: ClassVar[str] = (
        "The adapters cannot be merged: the sum would have to be rounded again. On the way, weights are unpacked to full precision here, so training "
        "takes as much memory as a model that is not quantized."
    )
    paper: ClassVar[str] = "[Dettmers et al. 2023, QLoRA (arXiv:2305.14314)](https://arxiv.org/abs/2305.14314)"

    technique: Literal["qlora"] = "qlora"
    format: Literal["nf4", "fp4", "int8"] = BitsAndBytes.model_fields["format"]
    block_size: Literal[64, 128, 256, 512, 1024, 2048, 4096] = BitsAndBytes.model_fields["block_size"]
    double_quantization: bool = option(
        True, "Store the blocks' absmax values in 8 bits: 0.127 instead of 0.5 bits per weight.", title="Double quantization",
        when={"format": ["nf4", "fp4"]},
    )  # fmt: skip
    optimizer: Literal["adamw", "paged-8bit"] = option(
        "adamw", "Paged: what AdamW remembers takes 8 bits a number, and moves to main memory where the GPU's does not suffice. It needs CUDA.",
        title="Optimizer", advanced=True, words={"adamw": "AdamW", "paged-8bit": "AdamW in 8 bits, paged (needs CUDA)"},
    )  # fmt: skip

    @property
    def pages(self) -> bool:
        return self.optimizer == "paged-8bit"

    def rounding(self) -> BitsAndBytes:
        return BitsAndBytes(format=self.format, block_size=self.block_size, double_quantization=self.double_quantization)

    def label(self) -> str:
        where = "" if self.where == "all" else f", {self.where}"
        return f"QLoRA rank {self.rank} on {self.rounding().label()}{where}"
