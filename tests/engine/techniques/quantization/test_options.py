import pytest

from engine.errors import PlainError
from engine.recipe import Recipe
from tests.cases import for_each


@for_each(
    ("step", "sentence"),
    [
        (
            {"technique": "codebook", "bits": 0},
            "Step 1, Bits (bits): 0 is not allowed; give a whole number from 1 to 8.",
        ),
        (
            {"technique": "codebook", "rows": -1},
            (
                "Step 1, Rows per codebook (rows): -1 is not allowed; give a whole number "
                "from 0 to 65536."
            ),
        ),
        (
            {"technique": "log", "steps_per_octave": 3},
            "Step 1, Steps per octave (steps_per_octave): 3 is not allowed; give 1, 2 or 4.",
        ),
        (
            {"technique": "ternary", "group_size": 0},
            (
                "Step 1, Group size (group_size): 0 is not allowed; give a whole number "
                "from 1 to 65536."
            ),
        ),
    ],
)
def test_what_is_out_of_bounds_is_refused_in_a_sentence(step, sentence):
    with pytest.raises(PlainError) as error:
        Recipe.from_dict({"steps": [step]})
    assert str(error.value) == sentence
