import pytest
import torch

from engine.calibration import InputStats
from engine.techniques.quantization.activations.config import Activations
from engine.techniques.quantization.activations.observers import (
    OBSERVERS,
    observed_range,
    observer_rows,
    rounding_and_clipping,
)
from engine.tensors.activations import code_range, qparams
from tests.cases import for_each
from tests.goldens import golden, golden_stats


@for_each("reference", ["torch", "llmcompressor"])
@for_each("observer", ["min-max", "moving-average"])
def test_observers_choose_the_same_range(observer, reference):
    due = golden("observers")
    ours = observed_range(golden_stats(due["batches"], False), Activations(observer=observer))
    torch.testing.assert_close(
        torch.tensor(ours), due[f"{reference}.{observer}"], rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("reference", ["torch", "llmcompressor"])
def test_the_range_of_least_squares_loses_no_more_than_a_reference_search(reference):
    due, config = golden("observers"), Activations(observer="mse")
    seen = golden_stats(due["batches"], False)
    ours, theirs = (
        rounding_and_clipping(seen.sample(), *ends, config)[0]
        for ends in (observed_range(seen, config), due[f"{reference}.mse"].double().tolist())
    )
    assert ours <= 1.01 * theirs


@pytest.mark.parametrize("scheme", ["symmetric", "asymmetric"])
def test_the_percentile_range_is_onnxruntimes_to_two_bins_of_its_histogram(scheme):
    due = golden("observers")
    ours = observed_range(
        golden_stats(due["batches"], False),
        Activations(observer="percentile", percentile=99.9, scheme=scheme),
    )
    bin_ = due["batches"].float().abs().max().item() * (1 if scheme == "symmetric" else 2) / 2048
    torch.testing.assert_close(
        torch.tensor(ours), due[f"onnxruntime.percentile-{scheme}"], rtol=0, atol=2 * bin_
    )


def test_the_entropy_range_is_nearly_onnxruntimes_and_loses_no_more():
    """Theirs tries every pair of bins on both sides of zero, ours every eighth bin of the
    magnitudes.
    """
    due, config = golden("observers"), Activations(observer="entropy", scheme="symmetric")
    seen = golden_stats(due["batches"], False)
    ours, theirs = observed_range(seen, config), due["onnxruntime.entropy"].tolist()
    assert ours == pytest.approx(theirs, rel=0.03)
    assert (
        rounding_and_clipping(seen.sample(), *ours, config)[0]
        <= 1.01 * rounding_and_clipping(seen.sample(), *theirs, config)[0]
    )


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
        due = (
            quantization_error(values, OBSERVERS[row.observer](seen, config), config)
            / values.square().sum()
        )
        assert row.rounding_error + row.clipping_error == pytest.approx(due.item(), rel=1e-12)
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
