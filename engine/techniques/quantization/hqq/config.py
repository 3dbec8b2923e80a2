"""HQQ: optimal zero points for each group, without calibration data."""

from typing import ClassVar, Literal

from engine.config.technique import Family, Technique, WeightState, option
from engine.techniques.quantization.options import BITS, GROUP_SIZE
from engine.techniques.quantization.rounding.config import RoundToNearest


class HQQ(Technique):
    list_position: ClassVar[int] = 30
    title: ClassVar[str] = "HQQ"
    kind: ClassVar[str] = "Uniform grid"
    family: ClassVar[Family] = "quantization"
    accepts: ClassVar[tuple[WeightState, ...]] = ("dense", "fewer", "zeros", "factors")
    summary: ClassVar[str] = (
        "Optimizes each group's zero point so that most weights lose little, at the expense of a "
        "few outliers. Needs no data."
    )
    explanation: ClassVar[str] = (
        "Rounding to nearest places the grid by the lowest and highest weight of a group. "
        "**Half-Quadratic Quantization** keeps that step size and optimizes the **zero point**, "
        "which need not be an integer. It minimizes the sum of errors to the power 0.7, a norm "
        "that tolerates a few large errors (outliers) but not many small ones. Two steps "
        "alternate: shrink each error toward zero, which estimates the part due to outliers; then "
        "set the zero point to the mean of what remains. A few iterations suffice."
    )
    formula: ClassVar[str] = (
        r"\begin{gathered} q = \mathrm{clip}\left(\mathrm{round}(w/s + z),\ 0,\ 2^b-1\right), "
        r"\qquad \hat w = s\,(q - z) \\[4pt]"
        r" e = \mathrm{sign}(w-\hat w)\,\max\left(|w-\hat w| - \tfrac{1}{\beta}|w-\hat "
        r"w|^{\,p-1},\ 0\right) \\[4pt]"
        r" z \leftarrow \mathrm{mean}\left(q - \frac{w - e}{s}\right), \qquad p = 0.7 "
        r"\end{gathered}"
    )
    limitations: ClassVar[str] = (
        "It does not see the layer's inputs. At 3 bits, calibrated methods (AWQ, GPTQ) are often "
        "slightly better at equal group size; at 2 bits HQQ needs groups of 16 to 64 weights, and "
        "methods that train are ahead. Each group stores a 16-bit zero point, so small groups are "
        "expensive."
    )
    paper: ClassVar[str] = (
        "[Badri & Shaji 2023, Half-Quadratic Quantization of Large Machine Learning "
        "Models](https://mobiusml.github.io/hqq_blog/)"
    )

    technique: Literal["hqq"] = "hqq"
    bits: int = option(**BITS)
    group_size: int = option(**GROUP_SIZE | {"default": 64})
    axis: Literal["row", "column"] = option(
        "row",
        "Direction of the groups: along a row of the weight (inputs of one output) or down a "
        "column (one input's weights in adjacent outputs).",
        title="Group axis",
        advanced=True,
        words={"row": "row (axis 1)", "column": "column (axis 0)"},
    )

    def rounding(self) -> RoundToNearest:
        """Rounding that the optimization starts from."""
        shared = (
            {"granularity": "group", "group_size": self.group_size}
            if self.group_size
            else {"granularity": "channel"}
        )
        return RoundToNearest(bits=self.bits, scheme="asymmetric", range="absmax", **shared)

    def label(self) -> str:
        shared = f"groups of {self.group_size}" if self.group_size else "whole rows"
        return ", ".join(
            [f"HQQ {self.bits}-bit", shared, *(["down columns"] if self.axis == "column" else [])]
        )
