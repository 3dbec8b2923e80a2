"""Models beside the usual shapes: scaled embeddings, experts, vision transformers, depthwise
convolutions, channels that lie last.
"""

import pytest

from engine.errors import PlainError
from engine.pipeline.run import run
from tests.cases import for_each
from tests.recipes import recipe_for
from tests.tiny import tiny

ROUNDING, SLOPES, WHITENED = (
    {"technique": "round-to-nearest"},
    {"technique": "taylor", "scope": "layer"},
    {"technique": "svd", "kept": 0.5},
)
NEURONS, HEADS, BLOCKS = (
    {"technique": "structured", "what": "neurons"},
    {"technique": "structured", "what": "heads"},
    {"technique": "blocks"},
)
CASES = [
    *(("gemma", step) for step in (ROUNDING, SLOPES, WHITENED, NEURONS, HEADS, BLOCKS)),
    *(("mixtral", step) for step in (ROUNDING, SLOPES, WHITENED, HEADS, BLOCKS)),
    *(("vit", step) for step in (ROUNDING, SLOPES, WHITENED, NEURONS, HEADS, BLOCKS)),
    *(("mobilenet", step) for step in (ROUNDING, WHITENED, {"technique": "structured"})),
    *(("convnext", step) for step in (ROUNDING, SLOPES, WHITENED)),
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {
        name: tiny(name, tmp_path_factory.mktemp(name))
        for name in ("gemma", "mixtral", "vit", "mobilenet", "convnext")
    }


@for_each(("architecture", "step"), CASES)
def test_it_is_saved_smaller_and_answers_the_same_when_it_is_opened_again(
    architecture, step, folders, tmp_path
):
    saved = run(
        recipe_for(architecture, folders[architecture], tmp_path / "data", step),
        save=tmp_path / "saved",
    ).summary
    again = run(recipe_for(architecture, tmp_path / "saved", tmp_path / "data")).summary.result
    assert saved.result.size_bytes < saved.baseline.size_bytes and again.loss == saved.result.loss
    assert (
        sum(path.stat().st_size for path in (tmp_path / "saved").glob("*.safetensors"))
        == saved.result.size_bytes
    )


def test_an_embedding_that_scales_is_one_tensor_with_the_output_layer(folders, tmp_path):
    whole = run(recipe_for("gemma", folders["gemma"], tmp_path / "data")).summary.result
    file = (folders["gemma"] / "model.safetensors").stat().st_size
    assert whole.size_bytes == file


@pytest.mark.parametrize(
    ("architecture", "what", "words"),
    [
        (
            "vit",
            "channels",
            (
                "has only one convolution or a few, so it has no channels to remove; set "
                r"Structure \(what\) to "
                "neurons or heads"
            ),
        ),
        ("convnext", "heads", "No heads were found in .* that could be removed"),
        (
            "mobilenet",
            "heads",
            "is a convolutional network without heads to remove; set Structure .what. to channels",
        ),
    ],
)
def test_missing_structures_of_a_model_give_one_message(
    architecture, what, words, folders, tmp_path
):
    with pytest.raises(PlainError, match=words):
        run(
            recipe_for(
                architecture,
                folders[architecture],
                tmp_path / "data",
                {"technique": "structured", "what": what},
            )
        )
