"""Experiment: a few salient input channels in 16 bits or scaled."""

from typing import ClassVar, Literal

from engine.config.technique import Family, Needs, Technique, WeightState, option
from engine.techniques.quantization.mixed_precision.config import SHARED
from engine.techniques.quantization.rounding.config import RoundToNearest


class AWQSalience(Technique):
    list_position: ClassVar[int] = 100
    title: ClassVar[str] = "Salient weights (experiment)"
    kind: ClassVar[str] = "Bits per layer"
    family: ClassVar[Family] = "quantization"
    accepts: ClassVar[tuple[WeightState, ...]] = ("dense", "fewer")
    needs: ClassVar[Needs] = "answers"
    summary: ClassVar[str] = (
        "Is protecting 1% of the weights enough? Keeps a few input channels in 16 bits, or scales "
        "them, and compares."
    )
    explanation: ClassVar[str] = (
        "Rounds all weights to a few bits but keeps a small share of the input channels in 16 "
        "bits: those with the strongest **activations**, those with the largest **weights**, or "
        "**random** ones. Then, instead of keeping them, multiplies them by a scale before "
        "rounding and divides afterwards. One run measures all of these; its table is the result, "
        "and the model with the best scale is kept."
    )
    formula: ClassVar[str] = (
        r"\hat w = \mathrm{quant}(s\,w)\,/\,s, \qquad s \in \{1,\ 1.25,\ 1.5,\ 2,\ 4\}"
    )
    limitations: ClassVar[str] = (
        "An experiment rather than a compression method: no fast kernel reads a format with single "
        "16-bit channels, and one scale for all layers is cruder than AWQ's search. A model with "
        "even activations has no salient channels."
    )
    paper: ClassVar[str] = (
        "[Lin et al. 2023, AWQ, tables 1 and 2 "
        "(arXiv:2306.00978)](https://arxiv.org/abs/2306.00978)"
    )

    technique: Literal["awq-salience"] = "awq-salience"
    bits: int = option(
        3,
        "Bits per stored weight.",
        title="Bits",
        ge=2,
        le=8,
    )
    group_size: int = option(
        128,
        "Number of adjacent weights in a row that share one scale.",
        **SHARED,
    )

    def rounding(self) -> RoundToNearest:
        return RoundToNearest(
            bits=self.bits, group_size=self.group_size, scheme="asymmetric", range="absmax"
        )

    @property
    def group(self) -> int:
        return self.group_size

    def label(self) -> str:
        return f"Salient weights {self.bits}-bit, groups of {self.group_size}"
