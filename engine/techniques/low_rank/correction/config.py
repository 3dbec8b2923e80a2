"""Low-rank correction of quantization errors (LoftQ, EoRA)."""

from typing import ClassVar, Literal

from engine.config.technique import WeightState, option
from engine.techniques.low_rank.options import FACTORS, RANKS, WhitenedLowRank
from engine.techniques.quantization.rounding.config import RoundToNearest


class LowRankCorrection(WhitenedLowRank):
    produces: ClassVar[WeightState] = "codes"
    list_position: ClassVar[int] = 260
    title: ClassVar[str] = "Low-rank correction"
    kind: ClassVar[str] = "Matrices"
    summary: ClassVar[str] = (
        "Rounds a weight to a few bits and adds two thin matrices that correct the largest part of "
        "the error."
    )
    explanation: ClassVar[str] = (
        "The rounding error is a matrix too, and its largest singular directions fit into two thin "
        "full-precision matrices. **Quantize first** corrects the error after rounding, weighted "
        "by the data (EoRA); **low rank first** removes the largest directions and rounds what "
        "remains. With several iterations both steps alternate, each fitted to what the other "
        "leaves (LoftQ, which starts by rounding)."
    )
    formula: ClassVar[str] = (
        r"\begin{gathered} Q = \mathrm{quant}(W - LR) \\[4pt] LR\,S = \mathrm{SVD}_r\left((W - "
        r"Q)\,S\right), \qquad S S^\top = \tfrac1N X X^\top"
        r" \end{gathered}"
    )
    limitations: ClassVar[str] = (
        "The rounding error has few dominant directions: at 4 bits a correction gains little for "
        "its bytes; at 2 and 3 bits it helps. Smaller groups are the alternative use of the same "
        "bytes."
    )
    paper: ClassVar[str] = (
        "[Liu et al. 2024, EoRA (arXiv:2410.21271)](https://arxiv.org/abs/2410.21271), "
        "[Li et al. 2023, LoftQ (arXiv:2310.08659)](https://arxiv.org/abs/2310.08659)"
    )

    technique: Literal["low-rank-correction"] = "low-rank-correction"
    bits: int = option(
        3,
        "Bits per rounded weight.",
        title="Bits",
        ge=2,
        le=8,
    )
    group_size: int = option(
        32,
        "Number of adjacent weights in a row that share one scale. 0: the whole row.",
        title="Group size",
        ge=0,
        le=65536,
        stops=(0, 8, 16, 32, 64, 128, 256, 512),
    )
    rank: int = option(
        8,
        "Rank of the correction.",
        title="Rank",
        **RANKS,
    )
    order: Literal["quantize-first", "low-rank-first"] = option(
        "low-rank-first",
        "Rounds the weight and then corrects it, or removes the largest directions before "
        "rounding.",
        title="Order",
        words={"quantize-first": "quantize first", "low-rank-first": "low rank first"},
    )
    turns: int = option(
        1,
        "Number of alternations between rounding and correction, if all weights count equally.",
        title="Iterations",
        ge=1,
        le=20,
        stops=(1, 2, 3, 5, 10, 20),
        when={"whitening": ["none"]},
    )
    factors: Literal["model", "float32", "bfloat16", "float16"] = option(**FACTORS)

    @property
    def rounds(self) -> int:
        """Number of alternations; 1 with whitening, because rounding ignores the error weights."""
        return self.turns if self.whitening == "none" else 1

    def rounding(self) -> RoundToNearest:
        shared = (
            {"granularity": "group", "group_size": self.group_size}
            if self.group_size
            else {"granularity": "channel"}
        )
        return RoundToNearest(bits=self.bits, range="absmax", **shared)

    @property
    def group(self) -> int:
        return self.group_size

    @property
    def revision(self) -> int:
        """Revision of the grid."""
        return self.rounding().revision

    @property
    def may_change_nothing(self) -> bool:
        return False

    def label(self) -> str:
        first = "" if self.order == "quantize-first" else ", low rank first"
        turns = f", {self.rounds} iterations" if self.rounds > 1 else ""
        return f"Rounding {self.bits}-bit + rank {self.rank}{first}{turns}"
