"""Table of the experiment on salient weights."""

from dataclasses import dataclass, replace
from typing import Literal

from engine.results.schema.declaration import ResultView, run_table


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
