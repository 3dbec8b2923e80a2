"""Table of the experiment on salient weights, and the row of its explanation."""

from dataclasses import dataclass, replace
from typing import Literal

from engine.results.schema.declaration import ResultView, explanation_row, run_table


@run_table("salience", required=True)
@dataclass(frozen=True)
class SalienceRow:
    """One variant of the experiment on salient weights, evaluated on the recipe's task."""

    # how the channels kept in 16 bits were chosen; "" if none was
    kept_by: Literal["", "activations", "weights", "random"]
    share: float  # of the input channels, kept or scaled
    scale: float
    bits_per_weight: float
    # |XW - XW^| / |XW| over all layers, on calibration inputs of the uncompressed model
    output_error: float
    perplexity: float
    accuracy: float
    loss: float
    chosen: bool = False  # True for the result of the experiment

    def with_chosen(self, chosen: bool) -> "SalienceRow":
        return replace(self, chosen=chosen)


SALIENCE_VIEW = ResultView("Salience", SalienceRow, ("SALIENCE",), position=200)


@explanation_row(panel="CHANNEL_SELECTION")
@dataclass(frozen=True)
class CriterionRow:
    """One input channel under three criteria for choosing the few to keep."""

    column: int
    activation: float  # mean |x| on calibration inputs
    weight: float  # norm of its column
    by_activations: bool
    by_weights: bool
    at_random: bool
