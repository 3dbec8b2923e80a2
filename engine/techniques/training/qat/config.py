"""Quantization-aware training, and BitNet."""

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from engine.config.technique import WeightState, option
from engine.errors import option_name
from engine.techniques.quantization.fixed_levels.config import Ternary
from engine.techniques.quantization.rounding.config import RoundToNearest
from engine.techniques.quantization.scale_options import Range
from engine.techniques.training.options import (
    INPUT_BITS,
    OBSERVER,
    RANGE,
    RANGE_OF_WEIGHTS,
    WEIGHTS,
    CompressionAwareTraining,
)
from engine.techniques.training_options import distill_weight_option


class QAT(CompressionAwareTraining, RoundToNearest):
    list_position: ClassVar[int] = 310
    title: ClassVar[str] = "Quantization-aware training (QAT)"
    label_name: ClassVar[str] = "QAT"
    kind: ClassVar[str] = "Quantization-aware training"
    accepts: ClassVar[tuple[WeightState, ...]] = (*WEIGHTS, "codes")
    summary: ClassVar[str] = (
        "Rounds the weights in every forward pass, so that training adapts to the rounding."
    )
    explanation: ClassVar[str] = (
        "During training the model computes with **rounded** weights, while updates go to "
        "unrounded copies. Rounding has zero gradient almost everywhere, so the backward pass "
        "treats it as the identity (**straight-through estimator**). Weights move to values where "
        "rounding hurts least, and the stored model is exactly the trained one. The step size of "
        "the grid can be trained too (**LSQ**); otherwise it follows the weights at every step. "
        "After a quantization step, training starts from its rounded weights."
    )
    formula: ClassVar[str] = (
        r"\begin{gathered} \hat w = s\left(\mathrm{clip}\left(\mathrm{round}(w/s) + z\right) - "
        r"z\right) \\[4pt]"
        r" \frac{\partial \hat w}{\partial w} := \begin{cases} 1 & \text{inside the range} \\ 0 "
        r"& \text{outside} \end{cases} \\[4pt]"
        r" \frac{\partial \hat w}{\partial s} = g \begin{cases} \mathrm{round}(w/s) - w/s & "
        r"\text{inside} \\"
        r" q_{\min} - z,\ q_{\max} - z & \text{outside} \end{cases} \\[4pt] g = 1 / \sqrt{N "
        r"q_{\max}} \end{gathered}"
    )
    limitations: ClassVar[str] = (
        "It needs training data like the model's own and the memory of training. At 8 bits there "
        "is nothing to recover, at 4 bits little. With little data the model overfits: check the "
        "held-out examples."
    )
    paper: ClassVar[str] = (
        "[Jacob et al. 2018 (arXiv:1712.05877)](https://arxiv.org/abs/1712.05877); "
        "straight-through: [Bengio et al. 2013 "
        "(arXiv:1308.3432)](https://arxiv.org/abs/1308.3432); learned step size: [Esser et al. "
        "2020, LSQ (arXiv:1902.08153)](https://arxiv.org/abs/1902.08153)"
    )
    view_notes: ClassVar[dict[str, str]] = {
        "Curves": "Step 0 is the same grid without training (post-training quantization); the "
        "curves show what training recovers."
    }

    technique: Literal["qat"] = "qat"
    bits: int = option(
        3,
        "Bits per stored weight.",
        title="Bits",
        ge=2,
        le=8,
    )
    range: Range = option("absmax", **RANGE_OF_WEIGHTS)
    distill_weight: float = distill_weight_option(1.0)
    learn_scales: bool = option(
        False,
        "Trains the step size of each group with the weights (LSQ), starting from that of "
        "rounding to nearest. Zero points stay fixed.",
        title="Learn step sizes (LSQ)",
    )
    activation_bits: int = option(0, **INPUT_BITS)
    activation_range: Literal["dynamic", "static"] = option("dynamic", **RANGE)
    observer: Literal["min-max", "moving-average", "percentile", "mse", "entropy"] = option(
        "min-max", **OBSERVER
    )
    pull: float = option(
        0.0,
        "Strength of a penalty on the squared distance between each weight and its quantized "
        "value.",
        title="Quantization regularizer",
        advanced=True,
        ge=0,
        le=1000,
        stops=(0, 0.01, 0.1, 1, 10, 100),
    )

    @model_validator(mode="after")
    def check_activation_options(self) -> Self:
        check_activation_bits(self)
        if self.learn_scales and self.scales == "power-of-two":
            raise ValueError(
                f"{option_name(self, 'learn_scales')} trains the scales, which "
                f"{option_name(self, 'scales')} power-of-two fixes; set scales to free, or "
                "learn_scales to false"
            )
        return self

    @property
    def may_change_nothing(self) -> bool:
        """After a quantizer with the same grid, training may not improve on the initial state."""
        return True

    def label(self) -> str:
        return ", ".join(
            [
                super().label(),
                *["LSQ"] * self.learn_scales,
                *activation_label(self),
            ]
        )


class BitNet(CompressionAwareTraining, Ternary):
    list_position: ClassVar[int] = 320
    title: ClassVar[str] = "Ternary and binary (BitNet)"
    kind: ClassVar[str] = "Quantization-aware training"
    accepts: ClassVar[tuple[WeightState, ...]] = (*WEIGHTS, "codes")
    summary: ClassVar[str] = "Three or two values per weight, with training to recover the quality."
    explanation: ClassVar[str] = (
        "In every forward pass each weight is −1, 0 or 1 times the mean magnitude of its layer or "
        "row (**absmean**), or only its sign; activations have 8 bits with one range per token. "
        "Unrounded copies of the weights are trained as in quantization-aware training. Large "
        "models trained like this **from scratch** come close to full precision at 1.58 bits per "
        "weight; from a trained checkpoint, the first steps repair the rounding. The paper uses "
        "one scale per layer, and its binary weights are centered before the sign is taken; here "
        "the default is one scale per row, and signs are taken as in XNOR-Net."
    )
    formula: ClassVar[str] = (
        r"\begin{gathered} \gamma = \frac{1}{n} \sum |w|, \qquad"
        r" \hat w = \gamma \cdot \mathrm{clip}\left(\mathrm{round}(w/\gamma), -1, 1\right), "
        r"\qquad \frac{\partial \hat w}{\partial w} := 1 \\[4pt]"
        r" \hat x = \frac{\max|x|}{127}\, \mathrm{round}\left(\frac{127\,x}{\max|x|}\right) "
        r"\end{gathered}"
    )
    limitations: ClassVar[str] = (
        "A few hundred steps do not replace the paper's training: a checkpoint recovers in part, "
        "and a model trained from random weights stays weak. The architecture is unchanged, so the "
        "paper's extra norms are missing."
    )
    paper: ClassVar[str] = (
        "[Ma et al. 2024, BitNet b1.58 (arXiv:2402.17764)](https://arxiv.org/abs/2402.17764); "
        "[Wang et al. 2023, BitNet (arXiv:2310.11453)](https://arxiv.org/abs/2310.11453)"
    )

    technique: Literal["bitnet"] = "bitnet"
    start: Literal["checkpoint", "random"] = option(
        "checkpoint",
        "Where training starts: the model's weights, or random weights in every treated layer; "
        "embeddings are unchanged.",
        title="Initial weights",
        words={
            "checkpoint": "the model's weights",
            "random": "random weights (from scratch)",
        },
    )
    distill_weight: float = distill_weight_option(1.0)
    activation_bits: int = option(8, **INPUT_BITS)
    activation_range: Literal["dynamic", "static"] = option("dynamic", **RANGE)
    observer: Literal["min-max", "moving-average", "percentile", "mse", "entropy"] = option(
        "min-max", **OBSERVER
    )

    @model_validator(mode="after")
    def check_activation_options(self) -> Self:
        check_activation_bits(self)
        return self

    @property
    def may_change_nothing(self) -> bool:
        """After ternary rounding, training may not improve on the initial state."""
        return True

    def label(self) -> str:
        return ", ".join(
            [
                f"BitNet {self.values}",
                self.granularity_label(),
                *activation_label(self),
                *["from random weights"] * (self.start == "random"),
            ]
        )


def activation_label(config: QAT | BitNet) -> list[str]:
    static = "static " if config.activation_range == "static" else ""
    return [f"{static}{config.activation_bits}-bit activations"] if config.activation_bits else []


def check_activation_bits(config: QAT | BitNet) -> None:
    """Check the number of bits for activations.

    Raises ValueError for one bit, whose only level is zero.
    """
    if config.activation_bits == 1:
        raise ValueError(
            f"{option_name(config, 'activation_bits')} is 1, which allows only zero; "
            "set it to 2 to 8, or to 0 to leave activations unquantized"
        )
