"""Table, result view and row of the explanation of the example technique. Must not import torch."""

from dataclasses import dataclass

from engine.results.schema.declaration import ResultView, explanation_row, run_table


@run_table("example_scales")
@dataclass(frozen=True)
class ExampleScaleRow:
    """Scale of one row of a layer's weight."""

    layer: str
    row: int
    scale: float  # distance of two neighboring levels


SCALES_VIEW = ResultView(
    "Row scales", ExampleScaleRow, ("example_technique.panels:ROW_SCALES",), per_layer=True
)


@explanation_row(panel="example_technique.panels:LARGEST_WEIGHTS")
@dataclass(frozen=True)
class ExampleLargestRow:
    """Largest weight of one row, and the scale that follows from it."""

    row: int
    largest: float  # max |w|
    scale: float
