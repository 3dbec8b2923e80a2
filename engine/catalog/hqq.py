"""HQQ: the best zero point for each group, without data."""

from typing import ClassVar, Literal

from engine.catalog.calibrated import BITS, GROUP_SIZE
from engine.catalog.quantization import RoundToNearest
from engine.catalog.technique import Family, Made, Technique, option


class HQQ(Technique):
    title: ClassVar[str] = "HQQ"
    kind: ClassVar[str] = "Even grid"
    family: ClassVar[Family] = "quantization"
    takes: ClassVar[tuple[Made, ...]] = ("dense", "fewer", "zeros", "factors")
    summary: ClassVar[str] = "Move each group's zero point to where most weights lose little, and let a few lose more. Needs no data."
    idea: ClassVar[str] = (
        "Plain rounding places the grid by a group's lowest and highest weight. **Half-Quadratic Quantization** keeps that step size and moves the "
        "grid's **zero point**, which need not be a whole code. It looks for the least sum of errors to the power 0.7: a norm that forgives a few "
        "large errors (outliers) and counts many small ones. Two steps take turns: each error is shrunk towards zero, which says what part of it is "
        "an outlier's; then the zero point is the mean of what is left. A few turns are enough, and no calibration text is needed."
    )
    formula: ClassVar[str] = (
        r"\begin{gathered} q = \mathrm{clip}\left(\mathrm{round}(w/s + z),\ 0,\ 2^b-1\right), \qquad \hat w = s\,(q - z) \\[4pt]"
        r" e = \mathrm{sign}(w-\hat w)\,\max\left(|w-\hat w| - \tfrac{1}{\beta}|w-\hat w|^{\,p-1},\ 0\right) \\[4pt]"
        r" z \leftarrow \mathrm{mean}\left(q - \frac{w - e}{s}\right), \qquad p = 0.7 \end{gathered}"
    )
    fails: ClassVar[str] = (
        "It knows nothing of what flows through the layer, so at 2 and 3 bits methods that look at data (GPTQ, AWQ) usually lose less. Each group "
        "stores a zero point in 16 bits: small groups are dear."
    )
    paper: ClassVar[str] = "[Badri & Shaji 2023, Half-Quadratic Quantization of Large Machine Learning Models](https://mobiusml.github.io/hqq_blog/)"

    technique: Literal["hqq"] = "hqq"
    bits: int = option(**BITS)
    group_size: int = option(**GROUP_SIZE | {"default": 64})
    axis: Literal["row", "column"] = option(
        "row",
        "Whether a group runs along a row of the weight (inputs of one output) or down a column (one input's weights in neighbouring outputs).",
        title="Groups run along (axis)",
        advanced=True,
        words={"row": "a row (axis 1)", "column": "a column (axis 0)"},
    )

    def rounding(self) -> RoundToNearest:
        """The grid that it starts from."""
        shared = {"granularity": "group", "group_size": self.group_size} if self.group_size else {"granularity": "channel"}
        return RoundToNearest(bits=self.bits, scheme="asymmetric", **shared)

    def label(self) -> str:
        shared = f"groups of {self.group_size}" if self.group_size else "whole rows"
        return ", ".join([f"HQQ {self.bits}-bit", shared, *(["down columns"] if self.axis == "column" else [])])
