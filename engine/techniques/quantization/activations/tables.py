"""Row of the explanation of activation quantization and SmoothQuant."""

from dataclasses import dataclass

from engine.results.schema.declaration import explanation_row


@explanation_row(panel="INPUT_RANGES")
@dataclass(frozen=True)
class ReachRow:
    """Range of one input column and its weights, before and after."""

    column: int
    input_before: float  # max |x| in a sample of calibration inputs
    input_after: float  # of the inputs of the layer's product
    weight_before: float  # max |w|
    weight_after: float
