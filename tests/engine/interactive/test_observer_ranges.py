"""Ranges of each observer on one layer: the answer equals a run's."""

import pytest

from engine.errors import PlainError
from engine.techniques.quantization.activations.observers import OBSERVERS
from tests.answers import ranges, what_if
from tests.recipes import task_for
from tests.tiny import tiny

LAYER = "model.layers.1.mlp.down_proj"


@pytest.fixture(scope="module")
def ranges_query(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("asked")
    task = task_for("llama", folder / "data")
    return {
        "model": str(tiny("llama", folder / "model")),
        "layer": LAYER,
        "measured": {
            "task": task,
            "calibration": {"text": task["text"], "samples": 4, "context": 32},
        },
    }


def test_the_answer_shows_the_inputs_and_every_observer(ranges_query):
    said = ranges(**ranges_query, step={"technique": "activations"})
    assert (
        list(said.observers.observer) == list(OBSERVERS)
        and said.examples == 4
        and set(said.observers.layer) == {LAYER}
    )
    assert (
        said.histogram.left.min() >= said.observers.low[0] - 1e-3
        and said.histogram["count"].sum() > 1000
    )


def test_smoothed_inputs_reach_less_far_and_given_scales_are_taken(ranges_query):
    plain, own = (
        ranges(**ranges_query, step={"technique": technique}).observers
        for technique in ("activations", "smoothquant")
    )
    halved = ranges(**ranges_query, step={"technique": "smoothquant"}, scales=[2.0] * 172).observers
    assert halved.high[0] == pytest.approx(plain.high[0] / 2) and own.high[0] != pytest.approx(
        plain.high[0], rel=1e-3
    )


def test_a_technique_without_ranges_is_refused_in_a_sentence(ranges_query):
    with pytest.raises(
        PlainError,
        match=(
            r"^GPTQ chooses no range for a layer's inputs; ask about a technique that quantizes "
            r"activations\.$"
        ),
    ):
        ranges(**ranges_query, step={"technique": "gptq"})


def test_scales_of_another_width_are_refused_in_a_sentence(ranges_query):
    with pytest.raises(
        PlainError, match=r"^3 scales were given for 172 input channels; give one for each\.$"
    ):
        ranges(**ranges_query, step={"technique": "smoothquant"}, scales=[1.0, 2.0, 3.0])


def test_the_least_error_comes_with_the_least_output_error_at_few_bits(ranges_query):
    """The range is what the what-if beside it rounds to."""
    step = {"technique": "activations", "activation_bits": 2}
    errors = {
        name: what_if(**ranges_query, step=step | {"observer": name}).row.output_error
        for name in ("min-max", "mse")
    }
    said = ranges(**ranges_query, step=step).observers.set_index("observer")
    total = said.rounding_error + said.clipping_error
    assert (errors["mse"] < errors["min-max"]) == (total["mse"] < total["min-max"])
