"""In models that also read images, the language model is compressed and evaluated; the rest is
unchanged.
"""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file

from engine.errors import PlainError
from engine.evaluation import evaluate
from engine.models import loading as work_models
from engine.models.layers import OTHER_PART, layers_of
from engine.models.loaded_model import load_model
from engine.models.loading import load_pretrained
from engine.models.model_source import resolve_model
from engine.pipeline.run import run
from engine.techniques.pruning.blocks.method import BLOCKS_DIFFER
from tests.answers import forecast, model_view
from tests.architectures import FURTHER_MULTIMODAL, MULTIMODAL, save_random_model
from tests.cases import for_each
from tests.recipes import recipe_for
from tests.tiny import tiny

CPU = torch.device("cpu")
each_model = pytest.mark.parametrize("architecture", MULTIMODAL)
# also as stored in files
LANGUAGE = (
    "language_model",
    "model.language_model",
    "lm_head",
    "model.layers",
    "model.embed_tokens",
    "model.norm",
)
STEPS = {
    "rounding": {"technique": "round-to-nearest"},
    "gptq": {"technique": "gptq", "group_size": 16},
    "neurons": {"technique": "structured", "what": "neurons"},
    "heads": {"technique": "structured", "what": "heads", "share": 0.5},
    "blocks": {"technique": "blocks"},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return {
        name: save_random_model(build, tmp_path_factory.mktemp(name) / "model")
        for name, build in MULTIMODAL.items()
    }


CASES = [
    *(("gemma3", step) for step in STEPS),
    ("qwen2-vl", "gptq"),
    ("qwen2-vl", "blocks"),
    ("llava", "heads"),
]


@for_each(("architecture", "step"), CASES)
def test_the_saved_folder_has_the_scores_of_its_run_and_the_forecast_size(
    architecture, step, models, tmp_path, bytes_alone
):
    recipe = recipe_for("llama", models[architecture], tmp_path / "data", STEPS[step])
    outcome = run(recipe, save=tmp_path / "saved")
    result = outcome.summary.result
    again = run(
        recipe.model_copy(
            update={"model": str(tmp_path / "saved"), "steps": (), "calibration": None}
        )
    ).summary.result
    assert (again.loss, again.size_bytes, again.parameters) == (
        result.loss,
        result.size_bytes,
        result.parameters,
    )
    assert forecast(recipe).size_bytes == result.size_bytes
    kept = outcome.tables.layers[~outcome.tables.layers.name.str.startswith(LANGUAGE)]
    assert len(kept) and (kept.technique == "").all()


FURTHER = {  # each by another family: tests of the families run them on few models
    "qwen2.5-vl": {"technique": "magnitude"},
    "qwen3-vl": {"technique": "gptq", "group_size": 16},
    "mistral3": {"technique": "distill", "steps": 1, "batch": 2},
    "paligemma": {"technique": "distill", "steps": 1, "batch": 2},
    "smolvlm": {"technique": "svd", "kept": 0.5, "whitening": "none", "scope": "layer"},
    "internvl": {"technique": "structured", "what": "neurons", "score": "l2"},
    "mllama": {"technique": "wanda"},
    "llama4": {"technique": "round-to-nearest"},
    "llava-next": {"technique": "lora", "rank": 2, "steps": 1, "batch": 2},
    "qwen2-audio": {"technique": "structured", "what": "heads", "share": 0.5, "score": "l2"},
    "voxtral": {"technique": "blocks"},
}


@for_each("architecture", FURTHER)
def test_further_architectures_keep_what_no_text_reaches(architecture, tmp_path, bytes_alone):
    folder = save_random_model(FURTHER_MULTIMODAL[architecture], tmp_path / "model")
    recipe = recipe_for("llama", folder, tmp_path / "data", FURTHER[architecture])
    result = run(recipe, save=tmp_path / "saved").summary.result
    again = run(
        recipe.model_copy(
            update={"model": str(tmp_path / "saved"), "steps": (), "calibration": None}
        )
    ).summary.result
    assert (again.loss, again.size_bytes) == (result.loss, result.size_bytes)
    assert forecast(recipe).size_bytes == result.size_bytes
    before, after = (
        load_model(resolve_model(str(each)), CPU, torch.float32)
        for each in (folder, tmp_path / "saved")
    )
    other = [layer.name for layer in before.layers if not layer.reads_text]
    assert other == [layer.name for layer in after.layers if not layer.reads_text]
    assert all(
        torch.equal(*(at.model.get_submodule(name).stored.to_dense() for at in (before, after)))
        for name in other
    )
    # two blocks with four layers for attention and three for what follows
    assert sum(layer.reads_text for layer in before.layers) >= 14


def test_a_student_keeps_what_reads_images_also_where_it_begins_at_random(models, tmp_path):
    step = {"technique": "distill", "start": "random", "steps": 1, "batch": 2}
    run(recipe_for("llama", models["llava"], tmp_path / "data", step), save=tmp_path / "saved")
    before, after = (
        load_model(resolve_model(str(each)), CPU, torch.float32)
        for each in (models["llava"], tmp_path / "saved")
    )
    other = [layer.name for layer in before.layers if not layer.reads_text]
    assert other and all(
        torch.equal(*(at.model.get_submodule(name).stored.to_dense() for at in (before, after)))
        for name in other
    )


def test_a_narrower_student_of_a_multimodal_model_is_refused(models, tmp_path):
    recipe = recipe_for(
        "llama",
        models["llava"],
        tmp_path / "data",
        {"technique": "distill", "width": 0.5, "steps": 1},
    )
    with pytest.raises(
        PlainError,
        match=r"reads images or sound too.*set Hidden size \(width\) to 1",
    ):
        run(recipe)


def test_blocks_that_differ_are_a_note_in_the_forecast(tmp_path, bytes_alone):
    folder = save_random_model(FURTHER_MULTIMODAL["mllama"], tmp_path / "model")
    recipe = recipe_for("llama", folder, tmp_path / "data", STEPS["blocks"])
    ahead, outcome = forecast(recipe), run(recipe, save=tmp_path / "saved")
    assert (
        BLOCKS_DIFFER in ahead.notes
        and abs(ahead.size_bytes - outcome.summary.result.size_bytes) < 100
    )
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["text_config"][
        "cross_attention_layers"
    ] in ([0], [1])


@each_model
def test_image_layers_are_written_unchanged_with_one_note(architecture, models, tmp_path):
    outcome = run(
        recipe_for("llama", models[architecture], tmp_path / "data", STEPS["rounding"]),
        save=tmp_path / "saved",
    )
    before, after = (
        load_model(resolve_model(str(folder)), CPU, torch.float32)
        for folder in (models[architecture], tmp_path / "saved")
    )
    other = [layer for layer in before.layers if not layer.name.startswith(LANGUAGE)]
    assert (
        other
        and not any(layer.reads_text for layer in other)
        and all(layer.reads_text for layer in before.layers if layer not in other)
    )
    for layer in other:
        assert torch.equal(
            *(at.model.get_submodule(layer.name).stored.to_dense() for at in (before, after))
        )
    rows = outcome.tables.layers.set_index("name").loc[[layer.name for layer in other]]
    assert set(rows.note) == {OTHER_PART} and (rows.technique == "").all()
    file = load_file(models[architecture] / "model.safetensors")
    outside = {name: value for name, value in file.items() if not name.startswith(LANGUAGE)}
    count, size = (
        sum(value.numel() for value in outside.values()),
        sum(value.nbytes for value in outside.values()),
    )
    notes = [note for note in outcome.summary.notes if "images or sound" in note]
    assert (
        len(notes) == 1
        and f"{count:,} of {before.parameters:,} parameters, {size:,} bytes" in notes[0]
    )
    assert notes[0] in model_view(str(models[architecture])).notes


def test_perplexity_is_that_of_the_language_model_alone(models, tmp_path):
    """Gemma 3's text model is a separate class, filled with the same weights."""
    recipe, folder = (
        recipe_for("llama", models["gemma3"], tmp_path / "data"),
        resolve_model(str(models["gemma3"])),
    )
    whole = load_pretrained(folder)
    alone = transformers.Gemma3ForCausalLM(whole.config.text_config).eval()
    alone.model.load_state_dict(whole.model.language_model.state_dict())
    alone.lm_head.load_state_dict(whole.lm_head.state_dict())
    one, other = (evaluate(recipe.task, model, folder) for model in (whole, alone))
    assert (
        one.scores["loss"] == pytest.approx(other.scores["loss"], rel=1e-6)
        and (one.guesses == other.guesses).all()
    )


def test_layers_of_blocks_are_counted_in_the_configuration_of_the_language_model(models, tmp_path):
    run(
        recipe_for("llama", models["gemma3"], tmp_path / "data", STEPS["blocks"]),
        save=tmp_path / "saved",
    )
    fields = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert (
        fields["text_config"]["num_hidden_layers"] == 1
        and len(fields["text_config"]["layer_types"]) == 1
    )
    assert "num_hidden_layers" not in fields and fields["vision_config"]["num_hidden_layers"] == 3


def test_images_still_change_what_a_compressed_model_says(models, tmp_path):
    run(
        recipe_for("llama", models["llava"], tmp_path / "data", STEPS["heads"]),
        save=tmp_path / "saved",
    )
    model = load_model(resolve_model(str(tmp_path / "saved")), CPU, torch.float32).model
    ids = torch.tensor([[1, *[8] * 16, 20, 21]])
    with torch.inference_mode():
        black, white = (
            model(input_ids=ids, pixel_values=torch.full((1, 3, 16, 16), value)).logits[0, -1]
            for value in (0.0, 1.0)
        )
    assert not torch.allclose(black, white)


def test_a_model_without_other_parts_has_no_such_note(tmp_path):
    folder = tiny("llama", tmp_path / "model")
    assert all(layer.reads_text for layer in layers_of(load_pretrained(resolve_model(str(folder)))))
    assert not model_view(str(folder)).notes


def test_a_package_that_a_model_needs_is_named(models, monkeypatch):
    """Gemma 3n's part for images is a model of timm."""

    def missing(*_):
        raise ImportError(
            "\nTimmWrapperModel requires the timm library but it was not found in your environment."
        )

    monkeypatch.setattr(work_models, "class_and_source", missing)
    with pytest.raises(
        PlainError,
        match=(
            "needs the Python package timm, which is not installed here; install it or choose "
            "another model"
        ),
    ):
        load_pretrained(resolve_model(str(models["llava"])))


def test_an_encoder_decoder_with_a_text_config_is_refused(tmp_path):
    folder = save_random_model(MULTIMODAL["llava"], tmp_path / "model")
    fields = {
        "architectures": ["Florence2ForConditionalGeneration"],
        "model_type": "florence2",
        "is_encoder_decoder": True,
        "text_config": {},
    }
    (folder / "config.json").write_text(json.dumps(fields))
    with pytest.raises(PlainError, match="is an encoder-decoder model"):
        resolve_model(str(folder))


@pytest.mark.parametrize(
    ("architecture", "family"),
    [("T5ForConditionalGeneration", "t5"), ("BartForConditionalGeneration", "bart")],
)
def test_an_encoder_decoder_is_refused_in_a_sentence_that_says_what_it_is(
    architecture, family, tmp_path
):
    folder = save_random_model(MULTIMODAL["llava"], tmp_path / "model")
    fields = {"architectures": [architecture], "model_type": family, "is_encoder_decoder": True}
    (folder / "config.json").write_text(json.dumps(fields))
    with pytest.raises(
        PlainError,
        match=(
            "is an encoder-decoder model .*, which writes one text for another; only language "
            "models"
        ),
    ):
        resolve_model(str(folder))
