"""Layers in block-by-block compression: nothing is skipped silently, and unchanged layers stay
exactly as they were.
"""

import gc

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.errors import PlainError
from engine.events import ProgressEvent
from engine.models.layers import layers_of
from engine.models.loaded_model import load_model
from engine.models.loading import load_pretrained, resolve_model
from engine.pipeline.run import run
from engine.recipe import Recipe
from tests.cases import for_each
from tests.recipes import recipe_for
from tests.tiny import tiny

CPU = torch.device("cpu")
GPTQ = {"technique": "gptq"}
AWQ = {"technique": "awq", "bits": 3, "steps": 5}
UP = {
    "llama": "model.layers.0.mlp.up_proj",
    "gpt2": "transformer.h.0.mlp.c_fc",
    "opt": "model.decoder.layers.0.fc1",
    "bert": "bert.encoder.layer.0.intermediate.dense",
    "resnet": "resnet.encoder.stages.1.layers.0.layer.0.convolution",
}
DOWN = UP | {"llama": "model.layers.0.mlp.down_proj", "opt": "model.decoder.layers.0.fc2"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {name: tiny(name, tmp_path_factory.mktemp(name)) for name in UP}


def notes_of(outcome) -> dict[str, str]:
    return outcome.tables.layers.set_index("name").note.to_dict()


def with_tensors(source, folder, **tensors):
    """A copy of a model's folder with some tensors filled with a value."""
    folder.mkdir()
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    held = load_file(folder / "model.safetensors")
    filled = {name: torch.full_like(held[name], value) for name, value in tensors.items()}
    save_file(held | filled, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


# --- nothing is left out in silence ---------------------------------------------------------------


@for_each("architecture", UP)
def test_every_layer_that_was_kept_says_why(architecture, folders, tmp_path):
    skipped = UP[architecture]
    recipe = recipe_for(
        architecture,
        folders[architecture],
        tmp_path / "data",
        {"technique": "round-to-nearest"},
        layers={"skip": [skipped]},
    )
    layers = run(recipe).tables.layers.set_index("name")
    kept = layers[(layers.technique == "") & (layers.tied_to == "")]
    assert kept.note[skipped] == "Layers to skip (layers.skip) names it" and (kept.note != "").all()
    embeddings = kept[kept.kind == "embedding"]
    assert (
        embeddings.note.str.contains(r"layers\.include").all() and len(kept) == len(embeddings) + 1
    )


@for_each("architecture", UP)
def test_a_group_wider_than_a_row_is_noted_for_each_such_layer(architecture, folders, tmp_path):
    outcome = run(
        recipe_for(
            architecture,
            folders[architecture],
            tmp_path / "data",
            {"technique": "round-to-nearest", "group_size": 100},
        )
    )
    widths = {
        layer.name: layer.matrix_shape[1]
        for layer in layers_of(load_pretrained(resolve_model(str(folders[architecture]))))
    }
    for row in outcome.tables.layers[outcome.tables.layers.technique != ""].itertuples():
        assert ("fewer than a group of 100" in row.note) == (widths[row.name] < 100)


def test_smoothquant_says_of_each_layer_that_it_could_not_smooth(folders, tmp_path):
    for architecture in ("bert", "resnet"):
        layers = run(
            recipe_for(
                architecture, folders[architecture], tmp_path / "data", {"technique": "smoothquant"}
            )
        ).tables.layers
        assert (
            layers[layers.technique != ""]
            .note.str.contains("no norm or layer before it can take a scale")
            .all()
        )


def test_an_embedding_that_a_method_cannot_see_is_kept_with_the_reason(folders, tmp_path):
    recipe = recipe_for(
        "llama", folders["llama"], tmp_path / "data", GPTQ, layers={"include": ["*embed_tokens"]}
    )
    row = run(recipe).tables.layers.set_index("name").loc["model.embed_tokens"]
    assert row.technique == "" and "inputs cannot be observed" in row.note


def test_weights_in_no_layer_of_a_known_kind_are_named(folders, tmp_path):
    notes = run(
        recipe_for("opt", folders["opt"], tmp_path / "data", {"technique": "round-to-nearest"})
    ).summary.notes
    assert any(
        "are outside the compressible layers" in note and "embed_positions.weight" in note
        for note in notes
    )


# --- odd weights and inputs -----------------------------------------------------------------------


@for_each(
    "step",
    [{"technique": "bitsandbytes", "format": "int8"}, {"technique": "llm-int8"}, GPTQ, AWQ],
    ids=str,
)
def test_a_layer_of_equal_weights_is_noted_and_accepted(step, folders, tmp_path):
    model = with_tensors(folders["llama"], tmp_path / "model", **{f"{UP['llama']}.weight": 0.5})
    outcome = run(recipe_for("llama", model, tmp_path / "data", step))
    assert "all its weights are equal" in notes_of(outcome)[UP["llama"]]


@for_each(
    "step",
    [GPTQ, AWQ, {"technique": "smoothquant"}, {"technique": "activations", "observer": "entropy"}],
    ids=str,
)
def test_a_layer_whose_inputs_are_always_zero_is_compressed_all_the_same(step, folders, tmp_path):
    model = with_tensors(folders["llama"], tmp_path / "model", **{f"{UP['llama']}.weight": 0.0})
    outcome = run(recipe_for("llama", model, tmp_path / "data", step))
    row = outcome.tables.layers.set_index("name").loc[DOWN["llama"]]
    assert row.technique and row.relative_error <= 1
    if step is GPTQ:
        assert "172 of 172 inputs were always zero" in row.note


def test_inputs_beyond_float16_still_have_an_output_error(folders, tmp_path):
    model = with_tensors(
        folders["llama"],
        tmp_path / "model",
        **{"model.layers.0.post_attention_layernorm.weight": 1e6},
    )
    layers = run(recipe_for("llama", model, tmp_path / "data", GPTQ)).tables.layers.set_index(
        "name"
    )
    assert 0 < layers.output_error[UP["llama"]] < 1


@pytest.mark.parametrize("architecture", ["llama", "resnet"])
def test_calibration_data_runs_in_half_precision_too(architecture, folders, tmp_path):
    assert (
        run(
            recipe_for(
                architecture, folders[architecture], tmp_path / "data", GPTQ, dtype="bfloat16"
            )
        ).summary.protocol.compute_dtype
        == "bfloat16"
    )


# --- what is kept is kept as it was ---------------------------------------------------------------


@pytest.mark.parametrize("skip", ["*v_proj", "*up_proj", "*q_proj"])
def test_a_skipped_layer_takes_no_scale(skip, folders, tmp_path):
    recipe = recipe_for(
        "llama", folders["llama"], tmp_path / "data", AWQ | {"bits": 8}, layers={"skip": [skip]}
    )
    outcome = run(recipe, save=tmp_path / "saved")
    saved, before = (
        load_model(resolve_model(str(tmp_path / "saved")), CPU, torch.float32).model,
        load_file(folders["llama"] / "model.safetensors"),
    )
    for name in outcome.tables.layers.query("technique == '' and tied_to == ''").name:
        assert torch.equal(saved.get_submodule(name).stored.to_dense(), before[f"{name}.weight"])
    # at 8 bits nothing is lost but what was scaled on one side alone
    assert outcome.summary.result.agreement > 0.9


# --- bad input ------------------------------------------------------------------------------------


def sentence(fields) -> str:
    with pytest.raises(PlainError) as error:
        run(fields if isinstance(fields, Recipe) else Recipe.from_dict(fields))
    assert str(error.value).endswith(".") and "\n" not in str(error.value)
    return str(error.value)


def test_no_samples_are_refused():
    assert "Calibration examples (calibration.samples): 0 is not allowed" in sentence(
        {"steps": [GPTQ], "calibration": {"samples": 0}}
    )


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "opt"])
def test_a_calibration_text_shorter_than_a_window_is_refused(architecture, folders, tmp_path):
    (tmp_path / "short.txt").write_text("Too short.")
    calibration = {"text": str(tmp_path / "short.txt"), "samples": 4, "context": 64}
    recipe = recipe_for(
        architecture, folders[architecture], tmp_path / "data", GPTQ, calibration=calibration
    )
    assert "fewer than one window of 64" in sentence(recipe)


@for_each("architecture", UP)
def test_a_budget_that_no_choice_of_bits_meets_is_refused(architecture, folders, tmp_path):
    step = {"technique": "mixed-precision", "budget": 2.0, "choices": [4, 8]}
    assert "cannot be met" in sentence(
        recipe_for(architecture, folders[architecture], tmp_path / "data", step)
    )


def test_activations_that_become_nan_on_calibration_data_alone_are_refused(
    folders, tmp_path, monkeypatch
):
    from engine.calibration import InputStats

    add = InputStats.add
    monkeypatch.setattr(InputStats, "add", lambda self, rows: add(self, rows * float("nan")))
    for step in (GPTQ, AWQ, {"technique": "smoothquant"}, {"technique": "llm-int8"}):
        assert "become NaN or infinite on the calibration data" in sentence(
            recipe_for("llama", folders["llama"], tmp_path / "data", step)
        )


@pytest.mark.parametrize("technique", ["gptq", "awq", "smoothquant"])
def test_never_more_than_a_block_is_dense(technique, tmp_path):
    """In a bfloat16 model, what is float32 and has a weight's shape has been unpacked from it; none
    here is square, as Gram matrices are.
    """
    model = tiny("llama", tmp_path / "model", torch.bfloat16, num_hidden_layers=3, head_dim=16)
    layers = [
        layer
        for layer in load_model(
            resolve_model(str(model)), torch.device("cpu"), torch.float32
        ).layers
        if layer.block
    ]
    shapes, most = (
        {shape for layer in layers for shape in (layer.matrix_shape, layer.matrix_shape[::-1])},
        [],
    )

    def dense() -> dict[int, int]:
        """Bytes by where they lie."""
        found = (
            each
            for each in gc.get_objects()
            if type(each) is torch.Tensor
            and each.dtype == torch.float32
            and tuple(each.shape) in shapes
        )
        return {
            each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in found
        }

    def look(event: ProgressEvent) -> None:
        if event.stage == "compressing":
            most.append(sum(dense().values()))

    gc.collect()
    gc.freeze()  # what is there already is not looked through
    try:
        run(recipe_for("llama", model, tmp_path / "data", {"technique": technique}), report=look)
    finally:
        gc.unfreeze()
    block = 4 * sum(layer.parameters for layer in layers) // 3
    assert len(most) > 20 and max(most) <= block
