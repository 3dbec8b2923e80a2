"""Speed is shown only where a real kernel ran, and everywhere else in a sentence."""

from statistics import quantiles

import pytest
import torch

from engine.kernels import Kernel
from engine.measurement import interleaved_timing, latency, layer_kernels
from engine.measurement.latency import latency_row
from engine.measurement.latency_inputs import Shape
from engine.pipeline.run import run
from engine.results.schema.tables import LatencyRow
from tests.cases import for_each
from tests.recipes import recipe_for
from tests.tiny import tiny

W8A8 = {"technique": "activations"}
WITHOUT = {"technique": "round-to-nearest", "bits": 4, "group_size": 48}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {
        name: tiny(name, tmp_path_factory.mktemp(name), torch.bfloat16)
        for name in ("llama", "gpt2", "bert", "resnet")
    }


@pytest.fixture
def no_hurry(monkeypatch):
    """A busy machine leaves nothing out."""
    monkeypatch.setattr(latency, "MODEL_SECONDS", 60)
    monkeypatch.setattr(latency, "LAYERS_SECONDS", 60)
    monkeypatch.setattr(interleaved_timing, "MAX_REPEATS", 3)


def rows_of(architecture, folders, tmp_path, *steps, **fields):
    return run(
        recipe_for(
            architecture, folders[architecture], tmp_path / "data", *steps, speed=True, **fields
        )
    ).tables.latency


def rows_with_times(rows):
    """The rows with times. Skips the test on a machine without a kernel for them."""
    assert len(rows) and has_reasons(rows)
    if (rows.kernel == "").all():
        pytest.skip(rows.note.iloc[0])
    return rows[rows.kernel != ""]


def has_reasons(rows) -> bool:
    """Return True if there are reasons instead of numbers: machines differ in their kernels."""
    return all(
        note.startswith("No kernel here: ") and note.endswith(".")
        for note in rows[rows.kernel == ""].note
    )


@for_each(
    "step",
    [
        W8A8,
        {"technique": "smoothquant", "mode": "dynamic"},
        {"technique": "llm-int8"},
        {"technique": "round-to-nearest"},
    ],
    ids=lambda step: step["technique"],
)
@for_each("architecture", ["llama", "gpt2", "bert", "resnet"])
def test_what_is_timed_gives_the_runs_own_answers(architecture, step, folders, tmp_path, no_hurry):
    ran = rows_with_times(rows_of(architecture, folders, tmp_path, step))
    layers = ran[(ran.version == "compressed") & (ran.what != "whole model")]
    assert (
        layers.difference < (1e-2 if layers.kernel.str.contains("weight-only").any() else 1e-5)
    ).all()
    assert (
        (ran.low_ms <= ran.median_ms).all()
        and (ran.median_ms <= ran.high_ms).all()
        and (ran.repeats == 3).all()
    )
    assert (ran.threads == torch.get_num_threads()).all()
    for _, pair in ran.groupby(["what", "shape"]):
        assert set(pair.version) == {"original", "compressed"}


def test_one_token_one_window_and_the_evaluation_batch_are_timed(folders, tmp_path, no_hurry):
    dynamic = {"technique": "activations", "mode": "dynamic"}
    ran = rows_with_times(rows_of("llama", folders, tmp_path, dynamic))
    whole = ran[ran["what"] == "whole model"]
    assert list(whole["shape"].unique())[:2] == ["1 token", "1 x 64 tokens"]
    assert whole.batch.max() > 1
    images = rows_with_times(rows_of("resnet", folders, tmp_path, W8A8))
    assert set(images["shape"]) <= {"1 image", "40 images"}


def test_where_no_kernel_runs_the_reason_is_all_there_is(folders, tmp_path):
    rows = rows_of("llama", folders, tmp_path, WITHOUT)
    assert (
        len(rows)
        and has_reasons(rows)
        and (rows.kernel == "").all()
        and rows.median_ms.isna().all()
        and (rows.repeats == 0).all()
    )


def test_layers_without_a_kernel_are_counted_in_the_models_note(folders, tmp_path, no_hurry):
    rows = rows_of(
        "llama",
        folders,
        tmp_path,
        {
            "technique": "mixed-precision",
            "by": "name",
            "bits_by_name": {"*.mlp.*": 8},
            "group_size": 32,
        },
    )
    ran = rows_with_times(rows)
    whole = ran[(ran["what"] == "whole model") & (ran.version == "compressed")]
    assert len(whole)
    assert whole.note.str.contains("layers have no kernel and compute in float32").all()


def test_speed_can_be_left_out_and_an_uncompressed_run_has_none(folders, tmp_path):
    recipe = recipe_for("llama", folders["llama"], tmp_path / "data", W8A8)
    asked = recipe.model_copy(update={"speed": True})
    assert run(recipe).tables.latency.empty and recipe.key() != asked.key()
    assert rows_of("llama", folders, tmp_path).empty


def test_a_kernel_that_gives_something_else_is_no_kernel(folders, tmp_path, monkeypatch, no_hurry):
    class Wrong(Kernel):
        display_name, tolerance = "a wrong one", 1e-5

        def __init__(self, layer):
            super().__init__()
            self.layer = [layer]

        def forward(self, inputs):
            return 1.01 * self.layer[0](inputs)

    monkeypatch.setattr(layer_kernels, "supported_kernel", Wrong)
    rows = rows_of("llama", folders, tmp_path, W8A8)
    assert (
        has_reasons(rows)
        and (rows.kernel == "").all()
        and rows.note.str.contains("0.01 off on this processor").all()
    )


def test_a_processor_without_kernels_gives_a_message(folders, tmp_path, monkeypatch):
    def raise_missing_engine(stored, layer):
        raise RuntimeError("Didn't find engine for operation\nand more")

    monkeypatch.setattr("engine.kernels.kernel.kernel_for", raise_missing_engine)
    rows = rows_of("llama", folders, tmp_path, W8A8)
    assert set(rows.note) == {
        "No kernel here: torch refuses on this processor (Didn't find engine for operation)."
    }


def test_a_model_that_is_large_is_timed_layer_by_layer(folders, tmp_path, monkeypatch, no_hurry):
    monkeypatch.setattr(latency, "MODEL_BYTES", 1)
    rows = rows_of("llama", folders, tmp_path, W8A8)
    assert has_reasons(rows) and "whole model" not in set(rows["what"])


def test_a_pass_that_takes_too_long_is_left_out(folders, tmp_path, monkeypatch, no_hurry):
    monkeypatch.setattr(latency, "WORK", 0)
    rows = rows_of("llama", folders, tmp_path, W8A8)
    assert has_reasons(rows) and (rows.kernel == "").all()


def test_a_row_has_the_median_and_the_quartiles():
    made = latency_row(
        "a",
        "original",
        "b",
        Shape(2, "2 x 3 tokens"),
        {"original": [5.0, 1.0, 4.0, 2.0, 3.0]},
        notes=["", "c"],
    )
    assert isinstance(made, LatencyRow) and (made.batch, made.repeats, made.note) == (2, 5, "c")
    assert [made.low_ms, made.median_ms, made.high_ms] == quantiles(
        [1, 2, 3, 4, 5], n=4, method="inclusive"
    )


@pytest.mark.parametrize("architecture", ["llama", "bert", "resnet"])
def test_a_model_that_got_smaller_is_timed_as_it_is(architecture, folders, tmp_path, no_hurry):
    rows = rows_of(architecture, folders, tmp_path, {"technique": "structured"})
    after = rows[rows.version == "compressed"]
    assert (
        (after.kernel == "float32 products").all()
        and (after.difference < 1e-5).all()
        and "whole model" in set(after["what"])
    )


def test_a_model_of_fewer_blocks_is_timed_as_a_whole(folders, tmp_path, no_hurry):
    rows = rows_of("gpt2", folders, tmp_path, {"technique": "blocks"})
    assert (
        set(rows["what"]) == {"whole model"}
        and set(rows.version) == {"original", "compressed"}
        and set(rows.kernel) == {"float32 products"}
    )
