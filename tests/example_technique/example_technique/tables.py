"""Table and result view of the example technique. Must not import torch."""

from dataclasses import dataclass

from engine.results.schema.declaration import ResultView, run_table


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
