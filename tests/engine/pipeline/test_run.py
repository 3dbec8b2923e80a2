"""A whole run: what comes out is what was written, and nothing ends in a traceback."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    FNetConfig,
    FNetForSequenceClassification,
    ModernBertDecoderConfig,
    ModernBertDecoderForCausalLM,
    OlmoConfig,
    OlmoForCausalLM,
)
from transformers.pytorch_utils import Conv1D

from engine.errors import Cancelled, PlainError
from engine.models import packed_folder as files
from engine.models.layers import layers_of
from engine.models.loaded_model import load_model
from engine.models.loading import load_pretrained, resolve_model
from engine.pipeline.run import run
from engine.recipe import Recipe
from tests.cases import covering, for_each
from tests.recipes import recipe_for
from tests.steps import ANY, STEPS
from tests.tiny import ARCHITECTURES, LLAMA, TOKENS, tiny, tokenizer

CPU = torch.device("cpu")
FOUR = STEPS["rounding"]
each_architecture = for_each("architecture", ARCHITECTURES)
each_step = for_each(("architecture", "step"), covering(ARCHITECTURES, STEPS))
any_step = for_each(("architecture", "step"), covering(ARCHITECTURES, ANY))


@pytest.fixture(scope="module")
def finished_run(cached_run):
    """Return the outcome by the step's name."""
    return lambda architecture, step: cached_run(architecture, ANY[step])


def error_message(recipe, **options) -> str:
    with pytest.raises(PlainError) as error:
        run(recipe, **options)
    assert str(error.value).endswith(".") and "\n" not in str(error.value)
    return str(error.value)


# --- what comes out -------------------------------------------------------------------------------


@any_step
def test_the_saved_model_has_the_scores_of_its_run(architecture, step, finished_run):
    outcome, save, recipe = finished_run(architecture, step)
    again = run(recipe.model_copy(update={"model": str(save), "steps": ()})).summary
    said = outcome.summary.result
    assert (
        again.result.loss == said.loss
        and again.result.accuracy == said.accuracy
        and again.result.perplexity == said.perplexity
    )
    assert again.result.size_bytes == said.size_bytes and again.baseline == again.result.model_copy(
        update={"agreement": None}
    )
    assert again.result.agreement == 1.0 and said.loss != outcome.summary.baseline.loss


@any_step
def test_sizes_are_the_bytes_of_the_files_and_the_ledgers(architecture, step, finished_run):
    outcome, save, _ = finished_run(architecture, step)
    written = sum(file.stat().st_size for file in save.glob("*.safetensors"))
    result, layers, ledger = outcome.summary.result, outcome.tables.layers, outcome.tables.ledger
    assert (
        written
        == result.size_bytes
        == ledger.size_bytes.sum()
        == resolve_model(str(save)).size_bytes
    )
    assert (
        ledger.groupby("layer").size_bytes.sum().drop("").to_dict()
        == layers[layers.tied_to == ""].set_index("name").size_bytes.to_dict()
    )
    treated = layers[layers.technique != ""]
    original = sum(math.prod(row.original_shape or row.shape) for row in treated.itertuples())
    assert result.bits_per_weight == pytest.approx(treated.size_bytes.sum() * 8 / original)
    assert result.compression == outcome.summary.baseline.size_bytes / written > 1
    assert outcome.summary.baseline.bits_per_weight == 32.0


@each_architecture
def test_the_layers_table_names_every_layer_once_and_the_technique_of_those_compressed(
    architecture, finished_run, folders
):
    outcome, _, _ = finished_run(architecture, "rounding")
    layers = outcome.tables.layers.set_index("name")
    due = {
        layer.name: layer
        for layer in layers_of(load_pretrained(resolve_model(str(folders[architecture]))))
    }
    assert sorted(layers.index) == sorted(due)
    for name, row in layers.iterrows():
        kept = due[name].kind == "embedding" or name == "lm_head"
        assert (
            row.technique == ("" if kept else "round-to-nearest")
            and math.isnan(row.relative_error) == kept
        )
        assert (row["shape"], row.kind, row.tied_to) == (
            due[name].shape,
            due[name].kind,
            due[name].tied_to,
        )
        assert kept or 0 < row.relative_error < 0.2


@each_architecture
def test_every_compressed_layer_has_its_channels_histograms_and_levels(architecture, finished_run):
    tables = finished_run(architecture, "rounding")[0].tables
    treated = tables.layers[tables.layers.technique != ""].set_index("name")
    assert tables.channels.groupby("layer").size().to_dict() == {
        name: shape[0] for name, shape in treated["shape"].items()
    }
    counts = tables.histograms.groupby(["layer", "version"])["count"].sum()
    assert counts.to_dict() == {
        (name, v): n for name, n in treated.parameters.items() for v in ("original", "compressed")
    }
    assert set(tables.levels.layer) == set(treated.index)


@each_step
def test_the_saved_models_logits_are_those_of_the_plain_model_with_rounded_weights(
    architecture, step, finished_run, folders
):
    _, save, _ = finished_run(architecture, step)
    reopened = load_model(resolve_model(str(save)), CPU, torch.float32).model
    kinds = {"bert": AutoModelForSequenceClassification, "resnet": AutoModelForImageClassification}
    model = (
        kinds.get(architecture, AutoModelForCausalLM).from_pretrained(folders[architecture]).eval()
    )
    with torch.inference_mode():
        for layer in layers_of(model):
            module, dense = (
                model.get_submodule(layer.name),
                reopened.get_submodule(layer.name).stored.to_dense(),
            )
            module.weight.copy_(
                dense.T if isinstance(module, Conv1D) else dense.view(module.weight.shape)
            )
        inputs = (
            {"pixel_values": torch.randn(2, 1, 16, 16)}
            if architecture == "resnet"
            else {"input_ids": torch.arange(4, 36)[None]}
        )
        torch.testing.assert_close(
            reopened(**inputs).logits, model(**inputs).logits, rtol=1e-5, atol=1e-5
        )


def test_a_16_bit_model_that_is_only_measured_has_16_bits_per_weight(tmp_path):
    for architecture in ("llama-tied", "gpt2"):
        model = tiny(architecture, tmp_path / architecture, torch.bfloat16)
        outcome = run(recipe_for(architecture, model, tmp_path / "data"))
        said, layers = outcome.summary, outcome.tables.layers
        assert (
            said.result.bits_per_weight == said.baseline.bits_per_weight == 16.0
            and said.result.compression == 1.0
        )
        assert (
            said.result.size_bytes == (model / "model.safetensors").stat().st_size
            and (layers.bits_per_weight == 16.0).all()
        )
        assert (layers.technique == "").all()


def test_a_compressed_model_that_is_measured_again_keeps_its_bits(finished_run):
    outcome, save, recipe = finished_run("llama", "nf4")
    tables = run(recipe.model_copy(update={"model": str(save), "steps": ()})).tables
    first, again = (each.layers.set_index("name").sort_index() for each in (outcome.tables, tables))
    assert (
        again.size_bytes.to_dict() == first.size_bytes.to_dict()
        and again.bits_per_weight.to_dict() == first.bits_per_weight.to_dict()
    )


def test_the_dtype_of_the_file_counts_and_not_the_configs(tmp_path):
    model = tiny("llama", tmp_path / "model", torch.bfloat16)
    config = json.loads((model / "config.json").read_text())
    for said in ({"torch_dtype": "bfloat16"}, {"dtype": "float32"}, {}):
        kept = {key: value for key, value in config.items() if key not in ("dtype", "torch_dtype")}
        (model / "config.json").write_text(json.dumps(kept | said))
        save = tmp_path / f"saved-{len(said)}-{next(iter(said), '')}"
        run(recipe_for("llama", model, tmp_path / "data", FOUR), save=save)
        reopened = load_model(resolve_model(str(save)), CPU, torch.float32)
        assert {layer.itemsize for layer in reopened.layers} == {2} and {
            value.dtype for value in reopened.plain.values()
        } == {torch.bfloat16}


@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
def test_buffers_keep_the_precision_of_the_file_whatever_a_run_computes_in(dtype, tmp_path):
    folder = tiny("resnet", tmp_path / "model")
    buffers = {
        name: value
        for name, value in load_file(folder / "model.safetensors").items()
        if "running" in name
    }
    steps = {"technique": "magnitude", "sparsity": 0.5}, {"technique": "gptq", "bits": 8}
    run(
        recipe_for("resnet", folder, tmp_path / "data", *steps, dtype=dtype),
        save=tmp_path / "saved",
    )
    kept = {
        name: value
        for path in (tmp_path / "saved").glob("*.safetensors")
        for name, value in load_file(path).items()
    }
    assert buffers and all(
        kept[name].dtype == value.dtype and torch.equal(kept[name], value)
        for name, value in buffers.items()
    )


def test_the_same_recipe_gives_the_same_numbers_twice(finished_run, folders, tmp_path):
    outcome, save, recipe = finished_run("llama", "nf4")
    again = run(recipe, save=tmp_path / "again")
    assert (
        again.summary.result == outcome.summary.result
        and again.summary.baseline == outcome.summary.baseline
    )
    for name in ("layers", "channels", "histograms", "levels", "ledger", "samples"):
        assert getattr(again.tables, name).equals(getattr(outcome.tables, name))
    for file in save.iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()


def test_eight_bits_hurt_less_than_two_where_it_matters(folders, tmp_path):
    calibration = {"text": str(tmp_path / "data" / "text.txt"), "samples": 2, "context": 32}
    outcomes = {
        bits: run(
            recipe_for(
                "llama",
                folders["llama"],
                tmp_path / "data",
                {**FOUR, "bits": bits},
                calibration=calibration,
            )
        )
        for bits in (2, 8)
    }
    errors = {
        bits: outcome.tables.layers.set_index("name").output_error.dropna()
        for bits, outcome in outcomes.items()
    }
    assert len(errors[2]) == 14 and (errors[8] < errors[2] / 10).all()
    assert outcomes[8].summary.result.agreement > outcomes[2].summary.result.agreement


def test_a_tied_embedding_that_is_compressed_runs_as_embedding_and_output_layer(folders, tmp_path):
    for architecture, embedding in (("llama-tied", "*embed_tokens"), ("gpt2", "*wte")):
        layers = {"skip": [], "include": [embedding]}
        recipe = recipe_for(
            architecture, folders[architecture], tmp_path / "data", FOUR, layers=layers
        )
        outcome = run(recipe, save=tmp_path / architecture)
        layers = outcome.tables.layers.set_index("name")
        holder, tied = layers.loc[layers.loc["lm_head"].tied_to], layers.loc["lm_head"]
        assert (
            holder.technique == "round-to-nearest"
            and tied.size_bytes == 0
            and tied.bits_per_weight == holder.bits_per_weight < 5
        )
        again = run(recipe.model_copy(update={"model": str(tmp_path / architecture), "steps": ()}))
        assert again.summary.result.loss == outcome.summary.result.loss


def test_a_layer_of_zeros_is_compressed_without_loss(folders, tmp_path):
    model = with_weight(
        folders["llama"],
        tmp_path / "model",
        "model.layers.0.mlp.up_proj.weight",
        torch.zeros(172, 48),
    )
    for step in (STEPS["rounding-tensor"], STEPS["fp4-double"]):
        layers = run(recipe_for("llama", model, tmp_path / "data", step)).tables.layers.set_index(
            "name"
        )
        assert layers.loc["model.layers.0.mlp.up_proj"].relative_error == 0


# --- what is refused ------------------------------------------------------------------------------


def with_weight(source, folder, name, weight):
    """A copy of a model's folder with one weight replaced."""
    folder.mkdir()
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    save_file(
        load_file(folder / "model.safetensors") | {name: weight},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    return folder


@for_each("value", [math.nan, math.inf])
@for_each(
    "name",
    ["model.layers.1.self_attn.q_proj.weight", "model.norm.weight", "model.embed_tokens.weight"],
)
def test_a_weight_that_is_no_number_is_named(name, value, folders, tmp_path):
    weight = load_file(folders["llama"] / "model.safetensors")[name].clone()
    weight.flatten()[3] = value
    model = with_weight(folders["llama"], tmp_path / "model", name, weight)
    assert name in error_message(recipe_for("llama", model, tmp_path / "data", FOUR))


def test_a_task_of_another_kind_is_refused(folders, tmp_path):
    recipe = recipe_for("llama", folders["bert"], tmp_path / "data", FOUR)
    assert "set task.kind to text-classification" in error_message(recipe)


def test_a_compressed_model_is_not_compressed_again(finished_run):
    _, save, recipe = finished_run("llama", "nf4")
    assert "is already compressed" in error_message(recipe.model_copy(update={"model": str(save)}))


def test_a_layer_that_needs_no_change_is_noted(folders, tmp_path):
    weight = torch.randint(-7, 8, (172, 48)) / 8.0
    weight[:, ::8] = 7 / 8
    model = with_weight(
        folders["llama"], tmp_path / "model", "model.layers.0.mlp.up_proj.weight", weight
    )
    step = {**FOUR, "grid": "narrow", "group_size": 8}
    outcome = run(recipe_for("llama", model, tmp_path / "data", step))
    assert (
        "is unchanged because"
        in outcome.tables.layers.set_index("name").note["model.layers.0.mlp.up_proj"]
    )


def test_windows_longer_than_the_model_are_refused(folders, tmp_path):
    recipe = recipe_for("llama", folders["llama"], tmp_path / "data", FOUR)
    task = recipe.task.model_copy(update={"context": 4096})
    assert "task.context" in error_message(recipe.model_copy(update={"task": task}))


def test_a_text_too_short_for_one_window_is_refused(folders, tmp_path):
    recipe = recipe_for("llama", folders["llama"], tmp_path / "data", FOUR)
    (tmp_path / "data" / "text.txt").write_text("Short.")
    assert "window" in error_message(recipe)


def test_a_pattern_that_names_no_layer_is_refused_before_anything_is_measured(folders, tmp_path):
    stages = []
    recipe = recipe_for(
        "llama", folders["llama"], tmp_path / "data", FOUR, layers={"skip": ["nothing.*"]}
    )
    assert "No layer is called 'nothing.*'" in error_message(
        recipe, report=lambda event: stages.append(event.stage)
    )
    assert "measuring-original" not in stages


def test_two_quantizations_in_one_recipe_are_refused():
    with pytest.raises(
        PlainError,
        match=(
            r"cannot come after Round to nearest, which leaves quantized codes in place of "
            r"weights; remove one of them\.$"
        ),
    ):
        Recipe.from_dict({"steps": [FOUR, STEPS["nf4"]]})


# --- saving ---------------------------------------------------------------------------------------


def non_empty_folder(folder):
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    return folder


def test_a_folder_that_holds_something_is_not_saved_into(folders, finished_run, tmp_path):
    recipe = recipe_for("llama", folders["llama"], tmp_path / "data", FOUR)
    for save in (finished_run("llama", "nf4")[1], non_empty_folder(tmp_path / "notes")):
        before = sorted(save.iterdir())
        assert "is not empty" in error_message(recipe, save=save)
        assert sorted(save.iterdir()) == before


def test_a_path_that_cannot_be_written_is_refused_before_anything_is_measured(folders, tmp_path):
    (tmp_path / "file").write_text("")
    recipe = recipe_for("llama", folders["llama"], tmp_path / "data", FOUR)
    for save in (tmp_path / "file", tmp_path / "file" / "below"):
        stages = []

        def report(event, stages=stages):
            stages.append(event.stage)

        assert "cannot be written to" in error_message(recipe, save=save, report=report)
        assert "measuring-original" not in stages


def test_a_full_disk_gives_a_message_and_leaves_no_files(folders, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "save_file", full)
    recipe = recipe_for("llama", folders["llama"], tmp_path / "data", FOUR)
    assert "no space left on device" in error_message(recipe, save=tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_without_steps_there_is_nothing_to_save(folders, tmp_path):
    assert "nothing to save" in error_message(
        recipe_for("llama", folders["llama"], tmp_path / "data"), save=tmp_path / "saved"
    )
    assert not (tmp_path / "saved").exists()


# --- cancelling -----------------------------------------------------------------------------------


def stop_at(stage, count=1):
    """A report and a question that asks to stop once a stage was reported so often."""
    seen = []
    return lambda event: seen.append(event.stage), lambda: seen.count(stage) >= count, seen


STOPS = [
    ("measuring-original", 1),
    ("compressing", 3),
    ("measuring-result", 1),
    ("writing-examples", 1),
]


@for_each(("stage", "count"), STOPS)
def test_a_canceled_run_stops_and_leaves_no_files(stage, count, folders, tmp_path, monkeypatch):
    monkeypatch.setenv("COMPRESSION_EXPLORER_HOME", str(tmp_path / "home"))
    report, cancelled, seen = stop_at(stage, count)
    (tmp_path / "empty").mkdir()
    for save in (tmp_path / "new", tmp_path / "empty"):
        seen.clear()
        with pytest.raises(Cancelled):
            run(
                recipe_for("llama", folders["llama"], tmp_path / "data", FOUR),
                save=save,
                report=report,
                cancelled=cancelled,
            )
        assert seen.count(stage) <= count + 1 and seen[-1] == stage
    assert not (tmp_path / "new").exists() and list((tmp_path / "empty").iterdir()) == []


def test_progress_counts_every_layer(folders, tmp_path):
    told = []
    run(
        recipe_for("gpt2", folders["gpt2"], tmp_path / "data", FOUR),
        report=told.append,
    )
    compressing = [event for event in told if event.stage == "compressing"]
    counts = [event.done for event in compressing]
    # one is tied
    assert counts == list(range(len(counts)))
    assert {event.total for event in compressing} == {len(counts) + 1}


# --- what is kept ---------------------------------------------------------------------------------


@for_each("why", ["large", "no room", "no folder", "no steps", "kept"])
def test_a_small_model_is_kept_where_there_is_room_and_nothing_else_changes(
    why, cached_run, monkeypatch, tmp_path
):
    outcome, _, recipe = cached_run("llama", FOUR)
    keep = tmp_path / "run" / "model"
    if why != "no folder":
        keep.parent.mkdir()
    monkeypatch.setattr("engine.pipeline.run.MAX_COPY_BYTES", 0 if why == "large" else 1 << 30)
    monkeypatch.setattr("engine.pipeline.run.FREE_SPACE_FACTOR", 10**15 if why == "no room" else 4)
    done = run(recipe.model_copy(update={"steps": ()} if why == "no steps" else {}), keep=keep)
    assert keep.exists() == (why == "kept") and (
        why == "no folder" or [*keep.parent.iterdir()] == [keep] * (why == "kept")
    )
    assert why == "no steps" or done.summary.result == outcome.summary.result


def test_a_saved_folder_has_a_card_of_its_own_and_files_that_others_may_read(cached_run):
    _, save, recipe = cached_run("llama", FOUR)
    card = (save / "README.md").read_text()
    assert recipe.model in card and "`round-to-nearest`" in card
    assert {path.stat().st_mode for path in save.glob("*.safetensors")} == {
        (save / "config.json").stat().st_mode
    }


# --- architectures that ask more of the code around them -----------------------------------------


def test_a_model_whose_parameters_are_all_in_layers_runs_and_writes_text(tmp_path):
    """OLMo's norms have no parameters, and transformers asks the first one where the model is."""
    folder = saved_with_tokenizer(OlmoForCausalLM(OlmoConfig(**LLAMA)), tmp_path / "model")
    outcome = run(recipe_for("llama", folder, tmp_path / "data", FOUR), save=tmp_path / "saved")
    again = run(recipe_for("llama", tmp_path / "saved", tmp_path / "data")).summary.result
    assert again.loss == outcome.summary.result.loss and not outcome.tables.samples.empty


def test_calibration_runs_in_float32_where_an_operation_has_no_bfloat16(tmp_path):
    """FNet's Fourier transform."""
    shape = {
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "max_position_embeddings": 128,
        "num_labels": 3,
    }
    folder = saved_with_tokenizer(
        FNetForSequenceClassification(FNetConfig(**TOKENS, **shape)), tmp_path / "model"
    )
    outcome = run(recipe_for("bert", folder, tmp_path / "data", {"technique": "gptq"}))
    assert (outcome.tables.layers.technique == "gptq").any()


def test_ids_beyond_the_vocabulary_are_ignored_where_the_configuration_allows_no_none(tmp_path):
    shape = {
        "hidden_size": 48,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    folder = saved_with_tokenizer(
        ModernBertDecoderForCausalLM(ModernBertDecoderConfig(**TOKENS, **shape, cls_token_id=1)),
        tmp_path / "model",
    )
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps(config | {"cls_token_id": 50281, "sep_token_id": 50282})
    )
    assert load_pretrained(resolve_model(str(folder))).config.cls_token_id == 0


def saved_with_tokenizer(model, folder):
    model.eval().save_pretrained(folder)
    tokenizer("llama").save_pretrained(folder)
    return folder
