"""LoRA and QLoRA."""

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from engine.config.technique import LayerKind, WeightState, option
from engine.errors import option_name
from engine.techniques.low_rank.options import FACTORS
from engine.techniques.quantization.bitsandbytes.config import BitsAndBytes
from engine.techniques.training.options import WEIGHTS, CompressionAwareTraining


class Adapters(CompressionAwareTraining):
    """Options shared by techniques that keep the weights and train low-rank adapters."""

    kind: ClassVar[str] = "Adapters"
    layer_kinds: ClassVar[tuple[LayerKind, ...]] = ("linear", "conv1d", "convolution1d", "conv2d")

    rank: int = option(
        8,
        "Rank of each adapter.",
        title="Rank",
        ge=1,
        le=65536,
        stops=(1, 2, 4, 8, 16, 32, 64, 128, 256),
    )
    alpha: float = option(
        16.0,
        "Scales the output of an adapter by alpha / rank.",
        title="Alpha",
        ge=0.01,
        le=65536,
        stops=(1, 2, 4, 8, 16, 32, 64, 128),
    )
    dropout: float = option(
        0.0,
        "Share of an adapter's inputs that are dropped at each step.",
        title="Dropout",
        advanced=True,
        ge=0,
        le=0.9,
    )
    where: Literal["all", "attention", "feed-forward"] = option(
        "all",
        "Layers that get adapters; the others are unchanged.",
        title="Layers with adapters",
        words={
            "all": "all layers in the recipe",
            "attention": "attention",
            "feed-forward": "feed-forward",
        },
    )
    adapters: Literal["model", "float32", "bfloat16", "float16"] = option(
        **FACTORS
        | {
            "title": "Adapter precision",
            "description": "Number format of the adapters; by default that of the model's file.",
        }
    )

    @property
    def may_change_nothing(self) -> bool:
        """Adapters start at zero, and training may not improve on that."""
        return True


class LoRA(Adapters):
    list_position: ClassVar[int] = 330
    title: ClassVar[str] = "Low-rank adapters (LoRA)"
    summary: ClassVar[str] = (
        "Trains two thin matrices next to each frozen weight to restore a compressed model or to "
        "fine-tune it."
    )
    explanation: ClassVar[str] = (
        "The weights, whether pruned, rounded or factorized, stay frozen. Next to each one a "
        "product of two thin matrices is trained, **A** from random numbers and **B** from zeros, "
        "so that training starts where compression ended. Few parameters need gradients and "
        "optimizer state, so little memory and data suffice. LoRA was made for cheap fine-tuning "
        "to a new task; here it recovers the quality that compression lost. The product can be "
        "added to dense weights (**merged**); with quantized weights it is stored separately."
    )
    formula: ClassVar[str] = (
        r"\begin{gathered} y = \hat W x + \frac{\alpha}{r}\, B A\, x, \qquad B \in \mathbb{R}^{m "
        r"\times r},\ A \in \mathbb{R}^{r \times n} \\[4pt]"
        r" W' = W + M \odot \frac{\alpha}{r} B A \quad \text{(merged; the mask } M \text{ keeps "
        r"zeros)} \end{gathered}"
    )
    limitations: ClassVar[str] = (
        "Adapters cost bytes and a little time: r (m + n) parameters at rank r for a layer of m x "
        "n. A loss that is not low rank, such as a quarter of all weights pruned, is only partly "
        "recovered. Training on other data than the model's own changes what it does."
    )
    paper: ClassVar[str] = (
        "[Hu et al. 2021, LoRA (arXiv:2106.09685)](https://arxiv.org/abs/2106.09685)"
    )

    technique: Literal["lora"] = "lora"
    merge: bool = option(
        False,
        "Adds the adapters to the weights, which must be dense: neither quantized nor factorized.",
        title="Merge into the weights",
    )
    keep_zeros: bool = option(
        True,
        "Keeps pruned weights at zero, in training too. Not available with dropout.",
        title="Keep zeros",
        when={"merge": [True]},
    )

    @model_validator(mode="after")
    def check_dropout(self) -> Self:
        if self.merge and self.keep_zeros and self.dropout:
            raise ValueError(
                f"{option_name(self, 'dropout')} does not work with "
                f"{option_name(self, 'keep_zeros')} in merged adapters; set dropout to 0, or "
                "keep_zeros to false"
            )
        return self

    @property
    def accepts(self) -> tuple[WeightState, ...]:
        return WEIGHTS if self.merge else (*WEIGHTS, "factors", "codes")

    @property
    def produces(self) -> WeightState:
        return "dense" if self.merge else "adapters"

    def label(self) -> str:
        layers = "" if self.where == "all" else f", {self.where}"
        return f"LoRA rank {self.rank}{layers}{', merged' if self.merge else ''}"


class QLoRA(Adapters):
    list_position: ClassVar[int] = 340
    title: ClassVar[str] = "QLoRA"
    produces: ClassVar[WeightState] = "adapters"
    summary: ClassVar[str] = "Trains adapters on top of frozen NF4 weights."
    explanation: ClassVar[str] = (
        "Weights are stored in **NF4** with double quantization (4.13 bits each at blocks of 64) "
        "and stay frozen; adapters train in full precision. QLoRA was made to fine-tune large "
        "models in little memory: weights, gradients and optimizer state of a 65B model fit on one "
        "48 GB GPU. Here the adapters first recover what rounding lost. The step combines "
        "bitsandbytes' storage with LoRA."
    )
    formula: ClassVar[str] = (
        r"y = \mathrm{dequant}(c_1, c_2, W^{\mathrm{NF4}})\, x + \frac{\alpha}{r}\, B A\, x"
    )
    limitations: ClassVar[str] = (
        "Adapters can be merged only by giving up 4 bits (merging into dequantized 16-bit weights) "
        "or by rounding again. Weights are unpacked to full precision during training here, so "
        "training takes as much memory as for an unquantized model."
    )
    paper: ClassVar[str] = (
        "[Dettmers et al. 2023, QLoRA (arXiv:2305.14314)](https://arxiv.org/abs/2305.14314)"
    )

    technique: Literal["qlora"] = "qlora"
    format: Literal["nf4", "fp4", "int8"] = BitsAndBytes.model_fields["format"]
    block_size: Literal[64, 128, 256, 512, 1024, 2048, 4096] = BitsAndBytes.model_fields[
        "block_size"
    ]
    double_quantization: bool = option(
        True,
        "Stores the blocks' absmax values in 8 bits: at blocks of 64, 0.127 instead of 0.5 bits "
        "per weight.",
        title="Double quantization",
        when={"format": ["nf4", "fp4"]},
    )
    optimizer: Literal["adamw", "paged-8bit"] = option(
        "adamw",
        "Paged: 8-bit AdamW state that moves to main memory when GPU memory runs out. Needs CUDA.",
        title="Optimizer",
        advanced=True,
        words={"adamw": "AdamW", "paged-8bit": "8-bit AdamW, paged (needs CUDA)"},
    )

    @property
    def uses_paged_optimizer(self) -> bool:
        return self.optimizer == "paged-8bit"

    def rounding(self) -> BitsAndBytes:
        return BitsAndBytes(
            format=self.format,
            block_size=self.block_size,
            double_quantization=self.double_quantization,
        )

    def label(self) -> str:
        layers = "" if self.where == "all" else f", {self.where}"
        return f"QLoRA rank {self.rank} on {self.rounding().label()}{layers}"
