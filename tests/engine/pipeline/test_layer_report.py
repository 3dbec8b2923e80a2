"""A layer that needs no change gets a note; runs without any changed layer, and methods that fail
to change one, are refused.
"""

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.calibration.stream import observe_inputs
from engine.errors import PlainError
from engine.models.layers import layers_of, weight_matrix
from engine.models.loading import load_pretrained, resolve_model
from engine.models.packed_modules import install_packed_layers
from engine.pipeline import blockwise as walk
from engine.pipeline.run import run
from engine.recipe import Layers
from tests.answers import forecast
from tests.cases import for_each
from tests.recipes import recipe_for
from tests.tiny import tiny

UP = "model.layers.0.mlp.up_proj"
HALF = "already zero, as many as requested"
PRUNING = [
    {"technique": "magnitude"},
    {"technique": "magnitude", "pattern": "2:4"},
    {"technique": "magnitude", "storage": "dense"},
    {"technique": "wanda"},
    {"technique": "sparsegpt"},
    {"technique": "taylor"},
    {"technique": "gradual", "steps": 2, "sparsity": 0.5, "schedule": "one-shot"},
]
ON_THE_GRID = [
    {"technique": "round-to-nearest", "scheme": "asymmetric", "group_size": 8},
    {"technique": "gptq", "scheme": "asymmetric", "group_size": 8, "bits": 4},
    {"technique": "float", "format": "fp8-e4m3", "scale": "none"},
]


def half_zero(weight: torch.Tensor) -> torch.Tensor:
    """Two of every four adjacent weights are zero; the others are far from zero."""
    big = weight.abs() + 1
    big.view(len(big), -1, 4)[..., :2] = 0
    return big


def on_sixteen_levels(weight: torch.Tensor) -> torch.Tensor:
    """Multiples of 1/8; every group of eight contains the largest and the smallest."""
    values = torch.randint(-8, 8, weight.shape, generator=torch.Generator().manual_seed(0)) / 8.0
    values[:, ::8], values[:, 1::8] = 7 / 8, -1
    return values


def change_weights(folder, change, names=(f"{UP}.weight",)):
    weights = load_file(folder / "model.safetensors")
    for name in names:
        weights[name] = change(weights[name])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_a_layer_of_zeros_does_not_keep_a_share_of_all_layers_from_the_others(tmp_path):
    model = change_weights(tiny("llama", tmp_path / "model"), torch.zeros_like)
    step = {"technique": "magnitude", "scope": "global", "sparsity": 0.5}
    rows = run(recipe_for("llama", model, tmp_path / "data", step)).tables.layers.set_index("name")
    assert rows.sparsity[UP] == 1 and (rows.sparsity[rows.technique != ""] > 0.2).all()


def linear_weights(folder) -> tuple[str, ...]:
    return tuple(
        f"{layer.name}.weight"
        for layer in layers_of(load_pretrained(resolve_model(str(folder))))
        if layer.block
    )


@for_each("step", PRUNING, ids=lambda step: "-".join(map(str, step.values())))
def test_a_layer_that_is_half_zero_gets_a_note(step, tmp_path):
    model = change_weights(tiny("llama", tmp_path / "model"), half_zero)
    outcome = run(recipe_for("llama", model, tmp_path / "data", step))
    rows = outcome.tables.layers.set_index("name")
    if step["technique"] != "gradual":  # trains its weights
        assert HALF in rows.note[UP] and rows.relative_error[UP] == 0
        assert any(
            "1 of 14 layers needed no change" in note and UP in note
            for note in outcome.summary.notes
        )
    assert rows.technique[UP] and rows.sparsity[UP] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("step", ON_THE_GRID, ids=lambda step: step["technique"])
def test_a_layer_that_is_on_the_grid_gets_a_note(step, tmp_path):
    model = change_weights(tiny("llama", tmp_path / "model"), on_sixteen_levels)
    row = (
        run(recipe_for("llama", model, tmp_path / "data", step))
        .tables.layers.set_index("name")
        .loc[UP]
    )
    assert (
        "this format represents each of its weights exactly" in row.note
        and row.relative_error == 0
        and row.size_bytes < row.original_bytes
    )


@pytest.mark.parametrize(
    ("step", "change"),
    [(PRUNING[0], half_zero), (PRUNING[3], half_zero), (ON_THE_GRID[0], on_sixteen_levels)],
)
def test_a_run_in_which_no_layer_changes_is_refused(step, change, tmp_path):
    model = tiny("llama", tmp_path / "model", intermediate_size=176)
    change_weights(model, change, linear_weights(model))
    with pytest.raises(PlainError, match="No layer has changed: model.layers.0"):
        run(recipe_for("llama", model, tmp_path / "data", step))


def test_a_method_that_fails_to_change_a_layer_fails_the_run(tmp_path, monkeypatch):
    """The method stored the layer dense, which was not requested."""
    compress = walk.compress_further

    def forgetful(config, held, weight, *rest):
        return held if weight.shape == (172, 48) else compress(config, held, weight, *rest)

    monkeypatch.setattr(walk, "compress_further", forgetful)
    for step in ({"technique": "round-to-nearest"}, {"technique": "magnitude"}):
        with pytest.raises(PlainError, match="although .* should have changed it"):
            run(
                recipe_for(
                    "llama", tiny("llama", tmp_path / step["technique"]), tmp_path / "data", step
                )
            )


TIED = "model.embed_tokens"
CALIBRATED = [
    {"technique": "gptq"},
    {"technique": "awq", "steps": 3, "bits": 3},
    {"technique": "wanda"},
    {"technique": "sparsegpt"},
    {"technique": "svd"},
    {"technique": "activations"},
    {"technique": "llm-int8"},
]


def recipe_with_tied_layer(tmp_path, step, **overrides):
    model = tiny("llama", tmp_path / "model", **overrides)
    return recipe_for(
        "llama", model, tmp_path / "data", step, layers={"skip": [], "include": [TIED]}
    )


@for_each("step", CALIBRATED, ids=lambda step: step["technique"])
def test_a_tied_embedding_is_calibrated_with_the_heads_inputs(step, tmp_path):
    rows = run(
        recipe_with_tied_layer(tmp_path, step, tie_word_embeddings=True)
    ).tables.layers.set_index("name")
    assert (
        rows.technique[TIED] == step["technique"]
        and rows.output_error[TIED] > 0
        and "cannot be observed" not in rows.note[TIED]
    )


def test_gptq_of_a_tied_embedding_loses_less_of_the_heads_output_than_rounding(tmp_path):
    lost = {}
    for step in ({"technique": "gptq", "bits": 3}, {"technique": "round-to-nearest", "bits": 3}):
        recipe = recipe_with_tied_layer(tmp_path, step, tie_word_embeddings=True)
        recipe = recipe.model_copy(
            update={
                "calibration": recipe_for(
                    "llama", tmp_path / "model", tmp_path / "data", CALIBRATED[0]
                ).calibration
            }
        )
        lost[step["technique"]] = run(recipe).tables.layers.set_index("name").output_error[TIED]
    assert lost["gptq"] < lost["round-to-nearest"]


def test_the_gram_matrix_of_a_tied_embedding_is_that_of_the_heads_inputs(tmp_path):
    model = load_pretrained(
        resolve_model(str(tiny("llama", tmp_path / "model", tie_word_embeddings=True)))
    )
    weight, tokens = weight_matrix(model.lm_head).clone(), torch.arange(12)[None]
    seen = []
    hook = model.lm_head.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model(input_ids=tokens)
    hook.remove()
    install_packed_layers(model, {}, torch.float32)
    with observe_inputs(model, [TIED], True, torch.device("cpu")) as found:
        model(input_ids=tokens)
    states = seen[0].flatten(0, 1)
    torch.testing.assert_close(found[TIED].gram, states.T @ states, rtol=1e-4, atol=1e-4)
    assert weight.shape[1] == found[TIED].width


def test_an_included_embedding_that_is_not_tied_is_named_at_the_top_and_the_forecast_knows(
    tmp_path, bytes_alone
):
    recipe = recipe_with_tied_layer(tmp_path, {"technique": "gptq"})
    outcome = run(recipe)
    assert any(
        f"{TIED} is included (layers.include) but was not changed" in note
        for note in outcome.summary.notes
    )
    assert forecast(recipe).size_bytes == outcome.summary.result.size_bytes


def test_an_included_embedding_whose_head_is_skipped_by_default_says_what_to_set(tmp_path):
    recipe = recipe_with_tied_layer(
        tmp_path, {"technique": "round-to-nearest"}, tie_word_embeddings=True
    )
    outcome = run(recipe.model_copy(update={"layers": Layers(include=(TIED,))}))
    assert any(
        "set Layers to skip (layers.skip) to an empty list to compress both" in note
        for note in outcome.summary.notes
    )


LEFT_WHOLE = [{"technique": "structured"}, {"technique": "blocks"}, {"technique": "gptq"}]


@for_each("step", LEFT_WHOLE, ids=lambda step: step["technique"])
@for_each("tied", [True, False])
def test_the_forecast_says_which_included_embeddings_stay_whole_and_so_does_the_result(
    step, tied, tmp_path, bytes_alone
):
    recipe = recipe_with_tied_layer(tmp_path, step, tie_word_embeddings=tied)
    if tied and step["technique"] in ("structured", "blocks"):
        recipe = recipe.model_copy(update={"layers": Layers(include=(TIED,))})
    ahead, outcome = forecast(recipe), run(recipe)
    whole = not outcome.tables.layers.set_index("name").technique[TIED]
    assert whole == (not tied or step["technique"] in ("structured", "blocks"))
    for notes in (ahead.notes, outcome.summary.notes):
        assert sum(f"{TIED} is included (layers.include)" in note for note in notes) == whole


def test_the_forecast_says_that_awq_has_no_scales_for_a_tied_embedding(tmp_path, bytes_alone):
    ahead = forecast(recipe_with_tied_layer(tmp_path, CALIBRATED[1], tie_word_embeddings=True))
    assert any(
        f"{TIED} is included (layers.include)" in note and "without scales" in note
        for note in ahead.notes
    )


def test_awq_says_at_the_top_that_a_tied_embedding_has_no_scales(tmp_path):
    outcome = run(recipe_with_tied_layer(tmp_path, CALIBRATED[1], tie_word_embeddings=True))
    assert any(
        f"{TIED} is included (layers.include) and was treated without scales" in note
        for note in outcome.summary.notes
    )
