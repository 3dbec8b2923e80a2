"""Quality and size of a model before and after, from what was measured and what was written."""

from engine.evaluation import Measured
from engine.measurement.size import bits_per_parameter, bits_per_weight
from engine.models.layers import Layer
from engine.models.loaded_model import Opened
from engine.results.schema.record import Scores


def baseline_scores(original: Opened, targets: list[Layer], measured: Measured) -> Scores:
    """Scores of the original. Bits per compressed weight are those of the layers that the run
    compresses, or of all.
    """
    return Scores(**sizes_of(original, targets), **measured.scores)


def result_scores(before: Scores, written: Opened, measured: Measured, agreement: float) -> Scores:
    """Scores of the result. Sizes are those of the written files after reloading, so a later run
    gives the same.
    """
    sizes = sizes_of(written)
    return Scores(
        **sizes,
        compression=before.size_bytes / sizes["size_bytes"],
        agreement=agreement,
        **measured.scores,
    )


def sizes_of(at: Opened, targets: list[Layer] = ()) -> dict[str, float]:
    return {
        "size_bytes": at.size_bytes,
        "parameters": at.parameters,
        "bits_per_weight": bits_per_weight(at, targets),
        "bits_per_parameter": bits_per_parameter(at.size_bytes, at.origin),
    }
