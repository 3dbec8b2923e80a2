"""Labels, and options out of bounds."""

import pytest

from engine.errors import PlainError
from engine.recipe import Recipe
from engine.techniques.low_rank.correction.config import LowRankCorrection
from engine.techniques.low_rank.svd.config import SVD
from engine.techniques.low_rank.tensor_decomposition.config import CP, Tucker
from engine.tensors.low_rank import (
    saves_parameters,
)
from tests.cases import for_each


@for_each(
    ("step", "words"),
    [
        ({"technique": "svd", "rank": 0}, r"Rank \(rank\): 0 is not allowed"),
        ({"technique": "svd", "kept": 0}, r"Parameters kept \(kept\): 0 is not allowed"),
        ({"technique": "svd", "energy": 1.1}, r"Energy kept \(energy\): 1.1 is not allowed"),
        (
            {"technique": "svd", "whitening": "pca"},
            "'pca' is not allowed; give none, asvd, svd-llm or fisher",
        ),
        ({"technique": "cp", "by": "energy"}, "'energy' is not allowed; give kept or rank"),
        ({"technique": "low-rank-correction", "rank": 0}, r"Rank \(rank\): 0 is not allowed"),
    ],
)
def test_nonsense_is_refused_in_a_sentence(step, words):
    with pytest.raises(PlainError, match=words) as refused:
        Recipe.from_dict({"steps": [step]})
    assert "\n" not in str(refused.value)


def test_labels_say_what_was_asked():
    assert (
        SVD().label() == "SVD 80% kept of all layers, whitened"
        and SVD(scope="layer", whitening="none").label() == "SVD 80% kept"
    )
    assert (
        SVD(by="rank", rank=8, whitening="asvd", solver="randomized").label()
        == "SVD rank 8, ASVD, randomized"
    )
    assert Tucker().label() == "Tucker-2 50% kept" and CP(by="rank").label() == "CP rank 32"
    assert (
        LowRankCorrection(whitening="none", turns=5).label()
        == "Rounding 3-bit + rank 8, low rank first, 5 iterations"
    )
    assert saves_parameters((24, 40), 14) and not saves_parameters((24, 40), 15)
