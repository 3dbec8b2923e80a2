"""What-if answers are what a run does to that layer."""

import pytest
from pandas.testing import assert_frame_equal

from engine.errors import PlainError
from engine.interactive import model_cache
from engine.pipeline.run import run
from tests.answers import what_if
from tests.cases import for_each
from tests.questions import LAYERS, STEPS
from tests.recipes import recipe_for


@for_each("step", STEPS, ids=lambda step: "-".join(map(str, step.values())))
@for_each("architecture", LAYERS)
def test_a_what_if_equals_the_run_on_that_layer(architecture, step, bfloat16_folders, tmp_path):
    layer, recipe = (
        LAYERS[architecture],
        recipe_for(architecture, bfloat16_folders[architecture], tmp_path / "data", step),
    )
    tables, said = run(recipe).tables, what_if(str(bfloat16_folders[architecture]), layer, step)
    row = tables.layers.set_index("name", drop=False).loc[layer].to_dict()
    for name, value in row.items():  # sums depend on the threads in their last digits
        assert getattr(said.row, name) == (
            pytest.approx(value, rel=1e-5, nan_ok=True) if isinstance(value, float) else value
        )
    for name, table in (
        ("histograms", said.histogram),
        ("levels", said.levels),
        ("channels", said.channels),
    ):
        assert_frame_equal(
            table, getattr(tables, name).query("layer == @layer").reset_index(drop=True), rtol=1e-5
        )
    assert said.weights == row["parameters"]


def test_a_very_large_layer_is_judged_on_its_first_rows(bfloat16_folders, monkeypatch):
    monkeypatch.setattr(model_cache, "LIVE_WEIGHTS", 10 * 172)
    said = what_if(str(bfloat16_folders["llama"]), LAYERS["llama"], STEPS[0] | {"range": "absmax"})
    assert said.weights == 10 * 172 and said.row.shape == (10, 172) and len(said.channels) == 10
    # five whole groups and a short one a row
    assert said.row.bits_per_weight == pytest.approx(4.0 + 16 * 6 / 172)


@for_each(
    ("found", "rows"),
    [("absmax", 40), ("rms", 40), ("percentile", 10), ("mse", 10), ("entropy", 10)],
)
def test_ranges_that_are_searched_for_are_judged_on_fewer_rows_while_a_control_is_dragged(
    found, rows, bfloat16_folders, monkeypatch
):
    monkeypatch.setattr(model_cache, "LIVE_WEIGHTS", 40 * 172)
    assert (
        what_if(
            str(bfloat16_folders["llama"]), LAYERS["llama"], STEPS[0] | {"range": found}
        ).weights
        == rows * 172
    )


def test_a_setting_that_is_refused_is_refused_in_a_sentence(bfloat16_folders):
    with pytest.raises(PlainError, match=r"^Step 1, Bits \(bits\): 9 is not allowed"):
        what_if(str(bfloat16_folders["llama"]), LAYERS["llama"], {**STEPS[0], "bits": 9})
