"""Options and texts of the example technique. Must not import torch."""

from typing import ClassVar, Literal

from engine.config.technique import Family, Technique, option


class Example(Technique):
    title: ClassVar[str] = "Example quantizer"
    family: ClassVar[Family] = "quantization"
    kind: ClassVar[str] = "Example"
    summary: ClassVar[str] = "Rounds each row to a symmetric grid up to its largest weight."
    explanation: ClassVar[str] = "Each row is divided by its **scale** and rounded."
    formula: ClassVar[str] = r"\hat{w} = s \cdot \mathrm{round}(w / s)"
    limitations: ClassVar[str] = "One outlier makes the steps of its whole row coarser."
    paper: ClassVar[str] = ""

    technique: Literal["example-quantizer"] = "example-quantizer"
    bits: int = option(4, "Bits of each code.", title="Bits", ge=2, le=8)

    def label(self) -> str:
        return f"Example {self.bits}-bit"
