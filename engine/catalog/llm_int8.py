"""LLM.int8(): eight bits for all but the outliers."""

from typing import ClassVar, Literal

from engine.catalog.technique import Family, Needs, Technique, option


class LLMInt8(Technique):
    title: ClassVar[str] = "LLM.int8()"
    kind: ClassVar[str] = "Activations too"
    family: ClassVar[Family] = "quantization"
    needs: ClassVar[Needs] = "range"
    size_depends_on_data: ClassVar[bool] = True
    summary: ClassVar[str] = "Weights and activations in 8 bits, but for the few input channels with outliers: those stay in 16."
    idea: ClassVar[str] = (
        "In large language models a few input channels carry values many times larger than all others. They are found on calibration data: "
        "every channel that reaches the **threshold** is an outlier. Its column of the weight is stored in 16 bits and multiplied as it is; "
        "all other products are done in INT8, with one scale for each token and one for each row of the weight, and both are added up."
    )
    formula: ClassVar[str] = r"XW \approx \sum_{h \in O} X_h W_h \;+\; s_x s_w \sum_{i \notin O} q^x_i\, q^w_i, \qquad O = \{h : \max|X_h| \ge \tau\}"
    fails: ClassVar[str] = (
        "Every outlier column costs 16 bits a weight, and a model without outliers gains nothing over plain 8 bits. Here the whole numbers "
        "are computed in floating point with the same result; splitting the product costs time even where an integer kernel exists."
    )
    paper: ClassVar[str] = "[Dettmers et al. 2022, LLM.int8() (arXiv:2208.07339)](https://arxiv.org/abs/2208.07339)"

    technique: Literal["llm-int8"] = "llm-int8"
    threshold: float = option(
        6.0, "Inputs at least this large are outliers.", title="Threshold", ge=0.5, le=1000, stops=(0.5, 1, 2, 4, 6, 8, 12, 20, 50, 100)
    )

    def label(self) -> str:
        return f"LLM.int8(), outliers from {self.threshold:g}"
