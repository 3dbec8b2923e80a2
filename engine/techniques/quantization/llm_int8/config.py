"""LLM.int8(): 8-bit weights and activations, except for outlier channels."""

from typing import ClassVar, Literal

from engine.config.technique import Family, Needs, Technique, option


class LLMInt8(Technique):
    list_position: ClassVar[int] = 80
    title: ClassVar[str] = "LLM.int8()"
    kind: ClassVar[str] = "Weights and activations"
    family: ClassVar[Family] = "quantization"
    needs: ClassVar[Needs] = "range"
    size_depends_on_data: ClassVar[bool] = True
    summary: ClassVar[str] = (
        "Weights and activations in 8 bits, except for the few input channels with outliers, which "
        "stay in 16 bits."
    )
    explanation: ClassVar[str] = (
        "In large language models a few input channels have values many times larger than all "
        "others. Channels that reach the **threshold** are outliers: their weight columns stay in "
        "16 bits and are multiplied unrounded. All other products run in INT8, with one scale per "
        "token and one per row of the weight, and the two results are added. The paper detects "
        "outliers in every input at run time; here columns are chosen beforehand on calibration "
        "data, so that their weights can be stored in 16 bits, and later outliers are left "
        "unrounded too."
    )
    formula: ClassVar[str] = (
        r"WX \approx \sum_{h \in O} W_h X_h \;+\; s_w s_x \sum_{i \notin O} q^w_i\, q^x_i, "
        r"\qquad O = \{h : \max|X_h| \ge \tau\}"
    )
    limitations: ClassVar[str] = (
        "Every outlier column costs 16 bits per weight, and a model without outliers gains nothing "
        "over plain 8-bit quantization. Splitting the product costs time. Quality is computed in "
        "floating point with the same result; latency, where measured, uses a real INT8 kernel."
    )
    paper: ClassVar[str] = (
        "[Dettmers et al. 2022, LLM.int8() (arXiv:2208.07339)](https://arxiv.org/abs/2208.07339)"
    )

    technique: Literal["llm-int8"] = "llm-int8"
    threshold: float = option(
        6.0,
        "Channels with an input at least this large are outliers.",
        title="Threshold",
        ge=0.5,
        le=1000,
        stops=(0.5, 1, 2, 4, 6, 8, 12, 20, 50, 100),
    )

    def label(self) -> str:
        return f"LLM.int8(), outliers from {self.threshold:g}"
