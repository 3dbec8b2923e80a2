from engine.techniques.quantization.activations.explain import COLUMNS
from tests.answers import lesson


def test_smoothing_shortens_the_strongest_inputs_and_lengthens_their_weights(questions):
    table = lesson(**questions("llama", "smoothquant")).table
    assert table.input_before.is_monotonic_decreasing and len(table) <= COLUMNS
    strongest, weakest = (table.input_after / table.input_before).iloc[[0, -1]]
    assert strongest < weakest
