"""Removal of whole blocks."""

from typing import ClassVar, Literal

from engine.config.technique import Needs, option
from engine.techniques.pruning.options import StructuredPruning


class Blocks(StructuredPruning):
    list_position: ClassVar[int] = 220
    title: ClassVar[str] = "Blocks (ShortGPT)"
    kind: ClassVar[str] = "Structured"
    needs: ClassVar[Needs] = "states"
    summary: ClassVar[str] = "Removes the transformer blocks that change the hidden state least."
    explanation: ClassVar[str] = (
        "Each transformer block adds to the hidden state. If the state points in the same "
        "direction before and after a block on calibration data, the block contributes little. Its "
        "**influence** is one minus the cosine similarity of the two, averaged over all tokens. "
        "The blocks with the least influence are removed with all their layers."
    )
    formula: ClassVar[str] = (
        r"\mathrm{BI}_i = 1 - \mathbb{E}_t\, \frac{x_{i,t}^\top\, x_{i+1,t}}{\lVert "
        r"x_{i,t}\rVert_2 \lVert x_{i+1,t}\rVert_2}"
    )
    limitations: ClassVar[str] = (
        "Models with few blocks have none to spare. Blocks are scored as if each were removed "
        "alone, and a small change of direction may still matter: generated text often degrades "
        "before perplexity does."
    )
    paper: ClassVar[str] = (
        "[Men et al. 2024, ShortGPT (arXiv:2403.03853)](https://arxiv.org/abs/2403.03853)"
    )

    technique: Literal["blocks"] = "blocks"
    count: int = option(
        1,
        "Number of blocks to remove, least influence first. 0 changes nothing.",
        title="Blocks removed",
        ge=0,
        le=1024,
        stops=(0, 1, 2, 3, 4, 6, 8, 12, 16),
    )

    @property
    def may_change_nothing(self) -> bool:
        return self.count == 0

    def label(self) -> str:
        return f"Blocks −{self.count}"
