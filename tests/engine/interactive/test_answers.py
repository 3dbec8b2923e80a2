"""Quick questions: the answers are those a run would give."""

import os

import numpy as np
import pytest
import torch
from pandas.testing import assert_frame_equal
from safetensors.torch import load_file, save_file

from engine.errors import PlainError
from engine.interactive import model_cache
from engine.interactive.answers import answer
from engine.interactive.model_cache import CACHE
from engine.pipeline.run import run
from engine.queries import WorkerQuery
from engine.recipe import Recipe
from tests.answers import forecast, layer_view, model_view, what_if
from tests.cases import for_each
from tests.recipes import recipe_for
from tests.tiny import ARCHITECTURES, tiny

STEPS = [
    {"technique": "round-to-nearest"},
    {"technique": "round-to-nearest", "bits": 3, "scheme": "asymmetric", "granularity": "channel"},
    {"technique": "bitsandbytes", "double_quantization": True},
    {"technique": "bitsandbytes", "format": "int8"},
]
LAYERS = {
    "llama": "model.layers.1.mlp.down_proj",
    "gpt2": "transformer.h.0.mlp.c_fc",
    "resnet": "resnet.embedder.embedder.convolution",
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {
        name: tiny(name, tmp_path_factory.mktemp(name), torch.bfloat16) for name in ARCHITECTURES
    }


@pytest.fixture(autouse=True)
def as_before():
    """Questions take all cores, as a worker may."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def size_written(recipe) -> int:
    return run(recipe).summary.result.size_bytes


@for_each("step", STEPS, ids=lambda step: "-".join(map(str, step.values())))
@for_each("architecture", LAYERS)
def test_what_if_says_what_a_run_does_to_that_layer(architecture, step, folders, tmp_path):
    layer, recipe = (
        LAYERS[architecture],
        recipe_for(architecture, folders[architecture], tmp_path / "data", step),
    )
    tables, message = run(recipe).tables, what_if(str(folders[architecture]), layer, step)
    row = tables.layers.set_index("name", drop=False).loc[layer].to_dict()
    for name, value in row.items():  # sums depend on the threads in their last digits
        assert getattr(message.row, name) == (
            pytest.approx(value, rel=1e-5, nan_ok=True) if isinstance(value, float) else value
        )
    for name, table in (
        ("histograms", message.histogram),
        ("levels", message.levels),
        ("channels", message.channels),
    ):
        assert_frame_equal(
            table, getattr(tables, name).query("layer == @layer").reset_index(drop=True), rtol=1e-5
        )
    assert message.weights == row["parameters"]


def test_a_very_large_layer_is_judged_on_its_first_rows(folders, monkeypatch):
    monkeypatch.setattr(model_cache, "LIVE_WEIGHTS", 10 * 172)
    message = what_if(str(folders["llama"]), LAYERS["llama"], STEPS[0] | {"range": "absmax"})
    assert (
        message.weights == 10 * 172
        and message.row.shape == (10, 172)
        and len(message.channels) == 10
    )
    # five whole groups and a short one a row
    assert message.row.bits_per_weight == pytest.approx(4.0 + 16 * 6 / 172)


@for_each(
    ("found", "rows"),
    [("absmax", 40), ("rms", 40), ("percentile", 10), ("mse", 10), ("entropy", 10)],
)
def test_ranges_that_are_searched_for_are_judged_on_fewer_rows_while_a_control_is_dragged(
    found, rows, folders, monkeypatch
):
    monkeypatch.setattr(model_cache, "LIVE_WEIGHTS", 40 * 172)
    assert (
        what_if(str(folders["llama"]), LAYERS["llama"], STEPS[0] | {"range": found}).weights
        == rows * 172
    )


@pytest.mark.usefixtures("untimed_forecasts")
@for_each("step", STEPS, ids=lambda step: "-".join(map(str, step.values())))
@for_each("architecture", ARCHITECTURES)
def test_the_forecast_is_the_size_of_the_files_to_the_byte(architecture, step, folders, tmp_path):
    recipe = recipe_for(architecture, folders[architecture], tmp_path / "data", step)
    estimate, result = forecast(recipe), run(recipe).summary.result
    assert (
        estimate.size_bytes == result.size_bytes
        and estimate.bits_per_weight == result.bits_per_weight
        and estimate.compression == result.compression
    )


@pytest.mark.usefixtures("untimed_forecasts")
def test_a_forecast_counts_embeddings_where_they_are_included(folders, tmp_path):
    layers = {"skip": [], "include": ["*embed*"]}
    for architecture in ("llama", "llama-tied"):
        recipe = recipe_for(
            architecture, folders[architecture], tmp_path / "data", STEPS[0], layers=layers
        )
        assert forecast(recipe).size_bytes == size_written(recipe)


def test_a_forecast_of_no_steps_is_the_model_as_it_is(folders):
    estimate = forecast(Recipe(model=str(folders["llama"])).model_dump(mode="json"))
    assert estimate.size_bytes == (folders["llama"] / "model.safetensors").stat().st_size
    assert (estimate.bits_per_weight, estimate.compression, estimate.layers) == (
        16.0,
        1.0,
        0,
    ) and estimate.seconds > 0


def test_a_forecast_grows_with_the_bits_and_the_text(folders):
    def forecast_for(bits=4, tokens=1000):
        task = {"kind": "language-modeling", "tokens": tokens}
        return forecast(
            {"model": str(folders["llama"]), "task": task, "steps": [{**STEPS[0], "bits": bits}]}
        )

    assert (
        forecast_for(bits=2).size_bytes
        < forecast_for(bits=3).size_bytes
        < forecast_for(bits=8).size_bytes
    )
    assert forecast_for(tokens=10**6).seconds < forecast_for(tokens=10**7).seconds


@pytest.mark.parametrize("architecture", LAYERS)
def test_a_layers_spectrum_is_numpys(architecture, folders):
    layer = LAYERS[architecture]
    weight = load_file(folders[architecture] / "model.safetensors")[f"{layer}.weight"].float()
    weight = weight.T if architecture == "gpt2" else weight.flatten(1)
    view = layer_view(str(folders[architecture]), layer)
    expected = np.linalg.svd(weight.double().numpy(), compute_uv=False)
    np.testing.assert_allclose(view.spectrum.singular_value, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        view.spectrum.cumulative_energy, np.cumsum(expected**2) / np.sum(expected**2), rtol=1e-4
    )
    np.testing.assert_allclose(view.channels.maximum, weight.numpy().max(1))
    assert view.histogram["count"].sum() == weight.numel() and list(view.spectrum["index"]) == list(
        range(1, len(expected) + 1)
    )


def test_a_model_view_lists_every_layer_as_it_is(folders):
    for name, folder in folders.items():
        view = model_view(str(folder))
        assert (view.layers.bits_per_weight == 16).all() and view.size_bytes == (
            folder / "model.safetensors"
        ).stat().st_size, name
        assert (
            view.layers.original_bytes.sum() < view.size_bytes
            and view.layers.relative_error.isna().all()
        )


def test_an_unknown_layer_is_answered_in_a_sentence(folders):
    for ask in (
        lambda: layer_view(str(folders["llama"]), "no.such"),
        lambda: what_if(str(folders["llama"]), "no.such", STEPS[0]),
    ):
        with pytest.raises(
            PlainError,
            match=r"^The model has no layer called 'no\.such'; choose one from the list\.$",
        ):
            ask()


def test_a_setting_that_is_refused_is_refused_in_a_sentence(folders):
    with pytest.raises(PlainError, match=r"^Step 1, bits: 9 is not allowed"):
        what_if(str(folders["llama"]), LAYERS["llama"], {**STEPS[0], "bits": 9})


def test_a_model_that_changed_on_disk_is_opened_again(tmp_path):
    folder = tiny("llama", tmp_path / "model")
    before = layer_view(str(folder), LAYERS["llama"]).spectrum
    tiny("llama", folder, seed=1)
    assert not layer_view(str(folder), LAYERS["llama"]).spectrum.equals(before)


def test_only_a_few_models_are_kept_at_hand(folders):
    for folder in folders.values():
        model_view(str(folder))
    assert len(CACHE.models.values) == CACHE.models.capacity


def test_the_doctor_says_what_it_computes_with():
    facts = answer(WorkerQuery())
    assert facts.threads >= 1 and facts.cuda == torch.cuda.is_available()
    assert facts.pid == os.getpid()


# --- models that cannot be used -------------------------------------------------------------------


def without_tokenizer(folder):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()


def with_a_nan(folder):
    tensors = load_file(folder / "model.safetensors")
    next(iter(tensors.values())).view(-1)[0] = float("nan")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


@for_each(
    ("spoil", "words"),
    [(with_a_nan, "holds NaN or infinite numbers"), (without_tokenizer, "tokenizer")],
)
@for_each(
    "ask",
    [
        model_view,
        lambda model: layer_view(model, LAYERS["llama"]),
        lambda model: forecast({"model": model, "steps": STEPS[:1]}),
    ],
)
def test_what_a_run_would_refuse_in_a_model_is_said_when_a_page_opens_it(
    ask, spoil, words, tmp_path
):
    spoil(tiny("llama", tmp_path))
    with pytest.raises(PlainError, match=words):
        ask(str(tmp_path))


def test_a_compressed_model_is_looked_at_and_has_no_forecast_of_more_steps(folders, tmp_path):
    recipe = recipe_for("llama", folders["llama"], tmp_path / "data", STEPS[0])
    run(recipe, save=tmp_path / "small")
    assert (
        model_view(str(tmp_path / "small")).parameters
        == model_view(str(folders["llama"])).parameters
    )
    with pytest.raises(PlainError, match="is already compressed"):
        forecast(
            recipe.model_copy(update={"model": str(tmp_path / "small")}).model_dump(mode="json")
        )
