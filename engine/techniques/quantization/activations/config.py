"""Quantized weights and activations, and SmoothQuant."""

from typing import ClassVar, Literal

from engine.config.technique import Family, LiveView, Needs, Technique, option
from engine.techniques.quantization.options import SCHEME
from engine.techniques.quantization.rounding.config import RoundToNearest


class Activations(Technique):
    list_position: ClassVar[int] = 60
    title: ClassVar[str] = "Weights and activations (W8A8)"
    kind: ClassVar[str] = "Weights and activations"
    family: ClassVar[Family] = "quantization"
    needs: ClassVar[Needs] = "range"
    live_views: ClassVar[tuple[LiveView, ...]] = ("input-ranges",)
    summary: ClassVar[str] = (
        "Quantizes the inputs of each layer too, so that matrix products can run on integers."
    )
    explanation: ClassVar[str] = (
        "Integer matrix products need integers on both sides. **Dynamic** quantization computes a "
        "range for each input at run time; **static** quantization fixes one range per layer "
        "beforehand, with an **observer** on calibration data. A wide range rounds coarsely; a "
        "narrow one clips (saturates) the largest values. Unlike weight-only quantization, this "
        "also speeds up arithmetic, which is the bottleneck for long prompts and large batches."
    )
    formula: ClassVar[str] = r"y \approx s_x\, s_w \sum_k (q^x_k - z_x)\, q^w_k"
    limitations: ClassVar[str] = (
        "A few channels with very large activations widen the range for all others; SmoothQuant "
        "and LLM.int8() address that. Quality is computed in floating point with the same result; "
        "latency, where measured, uses a real INT8 kernel."
    )
    paper: ClassVar[str] = (
        "[Jacob et al. 2018, Quantization and Training of Neural Networks "
        "(arXiv:1712.05877)](https://arxiv.org/abs/1712.05877)"
    )

    technique: Literal["activations"] = "activations"
    weight_bits: int = option(
        8,
        "Bits per stored weight, with one scale for each output channel.",
        title="Weight bits",
        ge=2,
        le=8,
    )
    activation_bits: int = option(
        8,
        "Bits per activation.",
        title="Activation bits",
        ge=2,
        le=8,
    )
    mode: Literal["static", "dynamic"] = option(
        "static",
        "Static: one range per layer, from calibration data. Dynamic: a new range for each input "
        "at run time.",
        title="Activation range",
        words={"static": "static (calibrated)", "dynamic": "dynamic (at run time)"},
    )
    observer: Literal["min-max", "moving-average", "percentile", "mse", "entropy"] = option(
        "mse",
        "How the range is estimated from calibration data: minimum and maximum, their moving "
        "average, a percentile, least squared error, or least KL divergence (entropy).",
        title="Observer",
        when={"mode": ["static"]},
        words={
            "min-max": "min-max",
            "moving-average": "moving average of min and max",
            "percentile": "percentile",
            "mse": "least squared error (MSE)",
            "entropy": "least KL divergence (entropy)",
        },
    )
    percentile: float = option(
        99.99,
        "Percentage of activations inside the range.",
        title="Percentile",
        advanced=True,
        ge=50,
        le=100,
        when={"observer": ["percentile"]},
    )
    per: Literal["token", "tensor"] = option(
        "token",
        "Computes a range for each token (each example of an image model), or one for the whole "
        "input.",
        title="Dynamic range per",
        when={"mode": ["dynamic"]},
        words={"token": "token", "tensor": "input (tensor)"},
    )
    scheme: Literal["asymmetric", "symmetric"] = option(
        "asymmetric",
        "Asymmetric ranges have a zero point and fit activations that are mostly positive. "
        "Symmetric ranges are centered on zero.",
        title="Activation scheme",
        advanced=True,
        words=SCHEME["words"],
    )

    def rounding(self) -> RoundToNearest:
        """Rounding of the weights."""
        return RoundToNearest(
            bits=self.weight_bits, granularity="channel", grid="narrow", range="absmax"
        )

    def label(self) -> str:
        chosen = f"static, {self.observer}" if self.mode == "static" else f"dynamic, per {self.per}"
        return f"W{self.weight_bits}A{self.activation_bits} {chosen}"


class SmoothQuant(Activations):
    list_position: ClassVar[int] = 70
    title: ClassVar[str] = "SmoothQuant"
    rescales_inputs: ClassVar[bool] = True
    summary: ClassVar[str] = (
        "Moves outliers from the activations into the weights, then quantizes both."
    )
    explanation: ClassVar[str] = (
        "A few activation channels are so large that a shared range rounds the others away. "
        "Dividing each input channel by a scale and multiplying the matching weight column by it "
        "leaves the output unchanged but evens out the activations. The division is folded into "
        "the norm before. **Alpha** sets how much of the range moves to the weights. Then both are "
        "quantized."
    )
    formula: ClassVar[str] = (
        r"s_j = \frac{\max|X_j|^{\alpha}}{\max|W_j|^{1-\alpha}}, \qquad WX = (W D_s)\,(D_s^{-1} X)"
    )
    limitations: ClassVar[str] = (
        "Only layers whose input comes from a norm that feeds nothing else can be smoothed; models "
        "that normalize after the residual sum (BERT) have none. If alpha is too large, the "
        "weights become hard to quantize instead."
    )
    paper: ClassVar[str] = (
        "[Xiao et al. 2022, SmoothQuant (arXiv:2211.10438)](https://arxiv.org/abs/2211.10438)"
    )

    technique: Literal["smoothquant"] = "smoothquant"
    alpha: float = option(
        0.5,
        "How the difficulty is split: 0 puts all of it on the activations, 1 puts all of it on the "
        "weights, 0.5 splits it evenly.",
        title="Alpha",
        ge=0,
        le=1,
    )
    automatic: bool = option(
        False,
        "Chooses alpha for each norm by the least expected output error.",
        title="Choose alpha per layer",
        advanced=True,
    )

    def label(self) -> str:
        return (
            f"SmoothQuant {'automatic' if self.automatic else f'{self.alpha:g}'}, {super().label()}"
        )
