"""Scores of a model before and after: its quality and the size of its files."""

from engine.evaluation import EvaluationResult
from engine.measurement.size import bits_per_parameter, bits_per_weight
from engine.models.layers import Layer
from engine.models.loaded_model import LoadedModel
from engine.results.schema.record import Scores


def baseline_scores(
    original: LoadedModel, targets: list[Layer], result: EvaluationResult
) -> Scores:
    """Scores of the original. Bits per compressed weight are those of the layers that the run
    compresses, or of all.
    """
    return Scores(**size_scores(original, targets), **result.scores)


def result_scores(
    before: Scores, written: LoadedModel, result: EvaluationResult, agreement: float
) -> Scores:
    """Scores of the result. Sizes are those of the written files after reloading, so measuring the
    folder again gives the same.
    """
    sizes = size_scores(written)
    return Scores(
        **sizes,
        compression=before.size_bytes / sizes["size_bytes"],
        agreement=agreement,
        **result.scores,
    )


def size_scores(loaded: LoadedModel, targets: list[Layer] = ()) -> dict[str, float]:
    return {
        "size_bytes": loaded.size_bytes,
        "parameters": loaded.parameters,
        "bits_per_weight": bits_per_weight(loaded, targets),
        "bits_per_parameter": bits_per_parameter(loaded.size_bytes, loaded.origin),
    }
