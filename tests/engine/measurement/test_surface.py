"""Block maxima of what flows into layers are those of the raw tensors, and few enough to be
kept.
"""

import pandas as pd
import pytest
import torch

from engine.calibration import InputStats
from engine.measurement.surface import MAX_SURFACES, SIDE, block_maxima, most_prominent, surface
from engine.pipeline.run import run
from tests.cases import for_each
from tests.recipes import recipe_for
from tests.tiny import tiny

CPU = torch.device("cpu")


def seen_of(*batches: torch.Tensor, area: int = 1) -> InputStats:
    seen = InputStats(batches[0].shape[1], CPU, wants_gram=False, area=area)
    for batch in batches:
        seen.add(batch)
    return seen


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@for_each("shape", [(1, 1), (64, 64), (65, 63), (7, 300), (200, 172)])
def test_every_block_holds_the_largest_of_its_part_of_the_raw_tensor(shape):
    inputs = draw(*shape)
    rows = surface("layer", seen_of(inputs), None)
    sampled = torch.cat(seen_of(inputs).vectors).abs()
    tall, wide = (-(-size // SIDE) for size in sampled.shape)
    for row in rows.itertuples():
        assert (
            row.largest
            == sampled[row.vector : row.vector + tall, row.channel : row.channel + wide]
            .max()
            .item()
        )
    assert (
        rows.vector.nunique() == -(-len(sampled) // tall) <= SIDE
        and rows.channel.nunique() == -(-shape[1] // wide) <= SIDE
    )


def test_no_value_is_lost_at_a_ragged_end():
    magnitudes = torch.zeros(7, 11)
    magnitudes[6, 10] = 3.0
    assert block_maxima(magnitudes, 4, 5)[-1, -1] == 3.0 and block_maxima(
        magnitudes, 4, 5
    ).shape == (2, 3)


def test_before_and_after_differ_by_the_scales():
    inputs, scales = draw(40, 16), torch.arange(1, 17).float()
    rows = surface("layer", seen_of(inputs).divided_by(scales), scales)
    before, after = (
        rows[rows.version == version].reset_index(drop=True) for version in ("original", "scaled")
    )
    pd.testing.assert_series_equal(
        before.largest, (after.largest * (after.channel + 1)).astype("float32"), check_names=False
    )
    assert before.largest.max() == pytest.approx(inputs.abs().max().item())


def test_a_convolutions_channel_has_the_largest_of_its_kernel():
    inputs = draw(10, 3 * 9)
    rows = surface("conv", seen_of(inputs, area=9), None)
    assert rows.channel.nunique() == 3
    assert rows.largest[rows.channel == 2].max() == pytest.approx(inputs[:, 18:].abs().max().item())


def test_a_run_keeps_the_scaled_and_the_most_striking():
    calm = [surface(f"calm {i}", seen_of(torch.ones(9, 9)), None) for i in range(20)]
    wild = surface("wild", seen_of(torch.eye(9)), None)
    scaled = surface("scaled", seen_of(torch.ones(9, 9)), torch.full((9,), 2.0))
    kept = most_prominent([*calm, wild, scaled])
    assert len(kept) == MAX_SURFACES and [each.layer.iloc[0] for each in kept[-2:]] == [
        "wild",
        "scaled",
    ]


@for_each(
    ("step", "scaled"),
    [("smoothquant", True), ("awq", True), ("activations", False), ("llm-int8", False)],
)
def test_runs_that_scale_or_quantize_inputs_show_each_input_once(step, scaled, tmp_path):
    model = tiny("llama", tmp_path / "model")
    tables = run(recipe_for("llama", model, tmp_path / "data", {"technique": step})).tables
    layers = tables.surfaces.drop_duplicates(["layer", "version"])
    assert set(layers.version) == ({"original", "scaled"} if scaled else {"original"})
    assert {name.rpartition(".")[2] for name in layers.layer} == {
        "q_proj",
        "o_proj",
        "gate_proj",
        "down_proj",
    }, "layers with one input share it"
    inputs = tables.inputs.groupby("layer").largest.max()
    largest = tables.surfaces[tables.surfaces.version == "original"].groupby("layer").largest.max()
    assert (largest <= inputs[largest.index] * (1 + 1e-5)).all(), (
        "a sample reaches no further than all data"
    )


def test_rounding_looks_at_no_inputs(tmp_path):
    assert run(
        recipe_for(
            "llama",
            tiny("llama", tmp_path / "model"),
            tmp_path / "data",
            {"technique": "round-to-nearest"},
        )
    ).tables.surfaces.empty


def test_inputs_of_a_convolution_are_counted_by_channel(tmp_path):
    tables = run(
        recipe_for(
            "resnet",
            tiny("resnet", tmp_path / "model"),
            tmp_path / "data",
            {"technique": "activations"},
        )
    ).tables
    due = {row.name: row.shape[1] for row in tables.layers.itertuples(index=False) if row.technique}
    assert (
        tables.inputs.groupby("layer").size().to_dict() == due and (tables.inputs.scale == 1).all()
    )
    assert (tables.inputs.magnitude <= tables.inputs.largest).all()
