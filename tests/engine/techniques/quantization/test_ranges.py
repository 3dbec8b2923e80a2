"""Ranges of each observer: both parts of the error add up, and the answer equals a run's."""

import pytest
import torch

from engine.calibration import InputStats
from engine.errors import PlainError
from engine.techniques.quantization.activations.config import Activations
from engine.techniques.quantization.observers import OBSERVERS, observed_range, observer_rows
from engine.tensors.activations import code_range, qparams
from tests.answers import ranges, what_if
from tests.cases import for_each
from tests.recipes import task_for
from tests.tiny import tiny

LAYER = "model.layers.1.mlp.down_proj"
each_setting = for_each(
    "config",
    [
        Activations(),
        Activations(scheme="symmetric"),
        Activations(activation_bits=3),
        Activations(activation_bits=4, scheme="symmetric"),
    ],
)


def heavy_tailed(batches: int = 3) -> InputStats:
    draw, seen = (
        torch.Generator().manual_seed(0),
        InputStats(24, torch.device("cpu"), wants_gram=False),
    )
    for number in range(batches):
        seen.add(torch.randn(100, 24, generator=draw).pow(3) + number / 2)
    return seen


def quantization_error(
    values: torch.Tensor, chosen: tuple[float, float], config: Activations
) -> float:
    """Share of the squares that is lost, by the definition of a quantizer."""
    scale, zero = qparams(
        *torch.tensor(chosen, dtype=torch.float64), config.activation_bits, config.scheme
    )
    return (
        (
            (
                torch.clamp(
                    (values / scale + zero).round(),
                    *code_range(config.activation_bits, config.scheme),
                )
                - zero
            )
            * scale
            - values
        )
        .square()
        .sum()
    )


@each_setting
def test_rounding_and_clipping_add_up_to_the_whole_error(config):
    seen = heavy_tailed()
    values = seen.sample().double()
    rows = observer_rows("layer", seen, config)
    assert {row.observer for row in rows} == set(OBSERVERS)
    for row in rows:
        expected = (
            quantization_error(values, OBSERVERS[row.observer](seen, config), config)
            / values.square().sum()
        )
        assert row.rounding_error + row.clipping_error == pytest.approx(expected.item(), rel=1e-12)
        assert (row.clipping_error > 0) == (row.clipped > 0)


@each_setting
def test_the_range_from_least_to_largest_clips_nothing(config):
    row = next(
        row for row in observer_rows("layer", heavy_tailed(), config) if row.observer == "min-max"
    )
    assert row.clipping_error == row.clipped == 0 < row.rounding_error


def test_a_range_as_wide_below_zero_as_above_clips_nothing_either():
    """Its zero code lies half a step off, so that both ends do."""
    seen = InputStats(2, torch.device("cpu"), wants_gram=False)
    seen.add(torch.tensor([[-1.0, 1.0], [0.3, -0.2]]))
    assert observer_rows("layer", seen, Activations())[0].clipping_error == 0


def test_a_saturating_range_rounds_finer_and_clips():
    rows = {
        row.observer: row
        for row in observer_rows(
            "layer", heavy_tailed(), Activations(activation_bits=4, percentile=98)
        )
    }
    wide, narrow = rows["min-max"], rows["percentile"]
    assert narrow.high - narrow.low < wide.high - wide.low
    assert narrow.rounding_error < wide.rounding_error and narrow.clipping_error > 0
    assert narrow.clipped == pytest.approx(0.02, abs=0.01)


def test_least_squares_loses_no_more_than_the_widest_range():
    rows = {
        row.observer: row.rounding_error + row.clipping_error
        for row in observer_rows("layer", heavy_tailed(), Activations(activation_bits=4))
    }
    assert rows["mse"] <= rows["min-max"] * (1 + 1e-5)


@for_each("observer", OBSERVERS)
def test_the_recipes_observer_is_marked_and_its_range_is_the_runs(observer):
    seen, config = heavy_tailed(), Activations(observer=observer, scheme="symmetric")
    (row,) = [row for row in observer_rows("layer", seen, config) if row.chosen]
    assert row.observer == observer and row.high == pytest.approx(
        max(abs(end) for end in observed_range(seen, config)), rel=1e-6
    )


@pytest.mark.filterwarnings("error")
def test_inputs_of_zeros_have_no_error():
    seen = InputStats(4, torch.device("cpu"), wants_gram=False)
    seen.add(torch.zeros(8, 4))
    assert all(
        row.rounding_error == row.clipping_error == row.clipped == 0
        for row in observer_rows("layer", seen, Activations())
    )


# --- asked from the screen ------------------------------------------------------------------------


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
    text = ranges(**ranges_query, step={"technique": "activations"})
    assert (
        list(text.observers.observer) == list(OBSERVERS)
        and text.examples == 4
        and set(text.observers.layer) == {LAYER}
    )
    assert (
        text.histogram.left.min() >= text.observers.low[0] - 1e-3
        and text.histogram["count"].sum() > 1000
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
    text = ranges(**ranges_query, step=step).observers.set_index("observer")
    total = text.rounding_error + text.clipping_error
    assert (errors["mse"] < errors["min-max"]) == (total["mse"] < total["min-max"])
