"""Table of the experiment on lottery tickets, and the row of its preview."""

from dataclasses import dataclass
from typing import Literal

from engine.results.schema.declaration import ResultView, explanation_row, run_table


@run_table("lottery")
@dataclass(frozen=True)
class LotteryRow:
    """One trained network of the experiment on lottery tickets."""

    variant: Literal["dense", "winning ticket", "other first weights", "random mask"]
    seed: int
    round: int  # 0 for the dense network
    left: float  # share of the weights
    accuracy: float  # on held-out training examples


LOTTERY_VIEW = ResultView("Lottery", LotteryRow, ("LOTTERY",), position=20, opens_first=True)


@explanation_row(panel="LOTTERY_PREVIEW")
@dataclass(frozen=True)
class RoundRow:
    """One training of a lottery ticket, as planned."""

    round: int  # 0: the dense network
    begins: int  # the step to which weights are rewound
    ends: int
    left: float  # share of the weights
