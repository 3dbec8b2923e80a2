"""Work of a technique besides compressing its layers, counted for a forecast."""

from dataclasses import dataclass

GRADIENT_PASSES = 3.0  # duration of a forward and backward pass, in forward passes


@dataclass(frozen=True)
class SearchWork:
    """Search of a technique before it chooses the settings of each layer."""

    evaluations: int = 0  # evaluations of the whole task
    answers: int = 0  # passes over calibration examples
    examples: int = 0  # examples per pass
    roundings: int = 0  # roundings of every layer


@dataclass(frozen=True)
class TrainingWork:
    """Training of a technique before its layers are stored."""

    steps: int = 0
    batch: int = 0  # examples in each step
    # duration of a step in forward passes: forward, backward, and a teacher's forward pass
    passes: float = GRADIENT_PASSES
    # forward passes of teachers whose outputs are computed once for each example
    teacher_passes: float = 0.0
    evaluations: int = 0  # evaluations on held-out examples
    # float32 copies of every weight: the weight, its gradient, and the state of AdamW
    copies: float = 4.0
    roundings: int = 0  # roundings of every layer, in forward passes
