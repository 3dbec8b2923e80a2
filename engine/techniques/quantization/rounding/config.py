"""Rounding to the nearest level of a uniform grid."""

from typing import ClassVar, Literal

from engine.config.technique import WeightState
from engine.techniques.quantization.scale_options import UniformGrid


class RoundToNearest(UniformGrid):
    list_position: ClassVar[int] = 10
    title: ClassVar[str] = "Round to nearest"
    label_name: ClassVar[str] = "Rounding"
    kind: ClassVar[str] = "Uniform grid"
    accepts: ClassVar[tuple[WeightState, ...]] = ("dense", "fewer", "zeros", "factors")
    summary: ClassVar[str] = (
        "Rounds every weight to the nearest level of a uniform grid. Needs no data and takes "
        "seconds."
    )
    explanation: ClassVar[str] = (
        "A group of weights shares a step size, the **scale**. Each weight is divided by the scale "
        "and rounded to an integer of a few bits, its **code**. Multiplying back gives a value at "
        "most half a step away, except for weights outside the **range**, which are clipped to its "
        "end. The range is chosen to minimize the squared error, or extends to the largest weight. "
        "Smaller groups give finer steps but need more scales. With power-of-two scales the codes "
        "are **fixed-point** numbers, and multiplying by the scale is a bit shift. Weight-only "
        "quantization saves memory and bandwidth (text generation), not arithmetic (long prompts, "
        "large batches)."
    )
    formula: ClassVar[str] = (
        r"\begin{gathered} q = \mathrm{clip}\left(\mathrm{round}(w/s) + "
        r"z,\ q_{\min},\ q_{\max}\right) \\[4pt]"
        r" \hat w = s\,(q - z) \\[4pt] s_{\text{symmetric}} = \frac{r}{2^{b-1}-1/2}, \qquad r "
        r"\le \max|w| \end{gathered}"
    )
    limitations: ClassVar[str] = (
        "Below 4 bits the steps become coarser than most weights. One outlier widens the grid for "
        "all weights that share its scale: use smaller groups, clip the range, or choose a "
        "calibrated method (GPTQ, AWQ)."
    )
    paper: ClassVar[str] = (
        "[Jacob et al. 2018, Quantization and Training of Neural Networks "
        "(arXiv:1712.05877)](https://arxiv.org/abs/1712.05877)"
    )

    technique: Literal["round-to-nearest"] = "round-to-nearest"
