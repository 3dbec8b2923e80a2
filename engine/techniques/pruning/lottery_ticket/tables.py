"""Table of the experiment on lottery tickets."""

from dataclasses import dataclass
from typing import Literal

from engine.results.schema.declaration import ResultView, run_table


@run_table("lottery")
@dataclass(frozen=True)
class LotteryRow:
    """One network of the experiment on lottery tickets, after it was trained."""

    variant: Literal["dense", "winning ticket", "other first weights", "random mask"]
    seed: int
    round: int  # 0 of the dense network
    left: float  # share of the weights
    accuracy: float  # on examples held out from training


LOTTERY_VIEW = ResultView("Lottery", LotteryRow, ("LOTTERY",), position=20, opens_first=True)
