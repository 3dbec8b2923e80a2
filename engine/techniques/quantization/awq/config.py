"""AWQ: activation-aware scaling before rounding."""

from typing import ClassVar, Literal

from engine.config.technique import Needs, option
from engine.techniques.quantization.options import SCHEME, GroupQuantized


class AWQ(GroupQuantized):
    list_position: ClassVar[int] = 50
    title: ClassVar[str] = "AWQ"
    kind: ClassVar[str] = "Uses calibration data"
    needs: ClassVar[Needs] = "gram"
    rescales_inputs: ClassVar[bool] = True
    summary: ClassVar[str] = (
        "Scales up the weights of channels with large activations before rounding, so that they "
        "lose less precision."
    )
    explanation: ClassVar[str] = (
        "A few input channels have much larger activations than the others; their weights are "
        "**salient**. Multiplying these weights by a scale s before rounding, and dividing the "
        "inputs by s, leaves the layer's output unchanged. Scaling up one channel hardly changes "
        "the step size of its group, so the relative error of its weights falls by about 1/s; if "
        "all channels were scaled, the step would grow with them. The division is folded into the "
        "layer or norm before. The exponent alpha is searched on calibration data, then each group "
        "is clipped where that lowers the error."
    )
    formula: ClassVar[str] = (
        r"\begin{gathered} s = \overline{|X|}^{\,\alpha} \\[4pt]"
        r" \alpha^* = \arg\min_\alpha \left\lVert WX - \mathrm{quant}(W D_s)\, D_s^{-1} X "
        r"\right\rVert,"
        r" \qquad D_s = \mathrm{diag}(s) \end{gathered}"
    )
    limitations: ClassVar[str] = (
        "Where no layer or norm before can absorb the scale (after a GELU or a residual sum), a "
        "layer is only clipped and rounded; the layer table lists these layers."
    )
    paper: ClassVar[str] = (
        "[Lin et al. 2023, AWQ (arXiv:2306.00978)](https://arxiv.org/abs/2306.00978)"
    )

    technique: Literal["awq"] = "awq"
    scheme: Literal["symmetric", "asymmetric"] = option(**SCHEME | {"default": "asymmetric"})
    clip: bool = option(
        True,
        "Searches each group's range on calibration data.",
        title="Search clipping range",
        advanced=True,
    )
    steps: int = option(
        20,
        "Number of values of alpha tried between 0 and 1.",
        title="Alpha search steps",
        advanced=True,
        ge=1,
        le=100,
    )
