"""Sizes and bits: relative to the original model's parameters, and equal after a saved folder is
reloaded.
"""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import RobertaConfig, RobertaForCausalLM

from engine.errors import PlainError
from engine.models.loaded_model import load_model
from engine.models.loading import load_pretrained, resolve_model
from engine.pipeline.run import run
from tests.answers import forecast, model_view
from tests.cases import for_each
from tests.recipes import recipe_for
from tests.tiny import LLAMA, TOKENS, tiny, tokenizer

CPU = torch.device("cpu")
ROUNDED = {"technique": "round-to-nearest", "range": "absmax"}
NEURONS = {"technique": "structured", "what": "neurons", "share": 0.5, "score": "l2"}
DISTILLED = {"technique": "distill", "steps": 1, "batch": 4}
CHAINS = {
    "rounded": ("llama-tied", ROUNDED),
    "conv1d, rounded": ("gpt2", ROUNDED),
    "embedding included": ("llama-tied", ROUNDED),
    "pruned": ("llama", {"technique": "magnitude", "sparsity": 0.6}),
    "factorized": (
        "llama",
        {"technique": "svd", "kept": 0.5, "whitening": "none", "scope": "layer"},
    ),
    "fewer neurons": ("llama", NEURONS),
    "fewer blocks": ("llama", {"technique": "blocks"}),
    "fewer neurons, rounded": ("llama", NEURONS, ROUNDED),
    "fewer blocks, rounded": ("gpt2", {"technique": "blocks"}, ROUNDED),
    "distilled": ("llama", DISTILLED),
    "distilled, rounded": ("llama", DISTILLED, ROUNDED),
    "distilled from random weights": ("bert", DISTILLED | {"start": "random"}),
    "fine-tuned, rounded": ("bert", {"technique": "fine-tune", "steps": 1, "batch": 4}, ROUNDED),
}
INCLUDED = {"embedding included": {"layers": {"skip": [], "include": ["*embed_tokens"]}}}


@pytest.fixture(scope="module")
def cached_run(folders, tmp_path_factory):
    """Outcome, saved folder and recipe of a pipeline, each created once."""
    kept = {}

    def of(chain: str):
        if chain not in kept:
            (architecture, *steps), where = CHAINS[chain], tmp_path_factory.mktemp("chain")
            recipe = recipe_for(
                architecture,
                folders[architecture],
                where / "data",
                *steps,
                **INCLUDED.get(chain, {}),
            )
            kept[chain] = run(recipe, save=where / "saved"), where / "saved", recipe
        return kept[chain]

    return of


def original_parameters(folder) -> int:
    """Parameters counted by torch, which counts a tied tensor once."""
    return sum(
        parameter.numel() for parameter in load_pretrained(resolve_model(str(folder))).parameters()
    )


@for_each("chain", CHAINS)
def test_bits_per_parameter_are_those_of_the_whole_file_by_the_originals_parameters(
    chain, cached_run, folders
):
    outcome, saved, _ = cached_run(chain)
    written, before = (
        sum(file.stat().st_size for file in saved.glob("*.safetensors")),
        folders[CHAINS[chain][0]],
    )
    result, baseline = outcome.summary.result, outcome.summary.baseline
    # persistent ones are in the file too
    buffers = baseline.parameters - original_parameters(before)
    assert 0 <= buffers < 0.02 * baseline.parameters
    assert result.bits_per_parameter == 8 * written / baseline.parameters
    assert result.bits_per_parameter == pytest.approx(
        baseline.bits_per_parameter / result.compression
    )


@for_each("chain", CHAINS)
def test_a_saved_folder_says_the_same_bits_when_it_is_opened_again(chain, cached_run):
    outcome, saved, recipe = cached_run(chain)
    again, said, view = (
        run(recipe.model_copy(update={"model": str(saved), "steps": ()})).summary,
        outcome.summary.result,
        model_view(str(saved)),
    )
    for scores in (again.baseline, again.result, view):
        assert (
            scores.bits_per_weight == said.bits_per_weight
            and scores.bits_per_parameter == said.bits_per_parameter
        )
        assert scores.size_bytes == said.size_bytes and scores.parameters == said.parameters


@pytest.mark.usefixtures("bytes_alone")
@for_each("chain", CHAINS)
def test_a_forecast_says_both_as_the_run_does(chain, cached_run):
    outcome, _, recipe = cached_run(chain)
    ahead, said = forecast(recipe), outcome.summary.result
    assert (ahead.bits_per_weight, ahead.bits_per_parameter) == pytest.approx(
        (said.bits_per_weight, said.bits_per_parameter)
    )


def test_halving_a_layer_takes_the_same_bits_by_svd_and_by_fewer_neurons(folders, tmp_path):
    """A float32 model goes from 32 to 16 bits: removed parameters still count."""
    by_rank = {"technique": "svd", "kept": 0.5, "whitening": "none", "scope": "layer"}
    bits = {}
    for name, step in (("svd", by_rank), ("neurons", NEURONS)):
        fields = {"layers": {"skip": ["*attn*", "lm_head"]}}
        bits[name] = run(
            recipe_for("llama", folders["llama"], tmp_path / name, step, **fields)
        ).summary.result.bits_per_weight
    assert bits["neurons"] == 16.0 and bits["svd"] == pytest.approx(16, rel=0.05)


def test_only_compressed_layers_count_for_bits_per_compressed_weight(cached_run):
    outcome, _, _ = cached_run("rounded")
    layers = outcome.tables.layers
    treated = layers[layers.technique != ""]
    assert (
        outcome.summary.result.bits_per_weight
        == treated.size_bytes.sum() * 8 / treated.parameters.sum()
        < 5
    )
    # the embedding stays in 32 bits
    assert outcome.summary.result.bits_per_parameter > outcome.summary.result.bits_per_weight


def test_a_layers_bits_are_by_what_it_had_in_the_original_after_every_step(cached_run):
    layers = cached_run("fewer neurons, rounded")[0].tables.layers.set_index("name")
    row = layers.loc["model.layers.0.mlp.down_proj"]
    assert row.parameters == 48 * 86 and row.bits_per_weight == row.size_bytes * 8 / (48 * 172)


# --- folders of earlier versions, and damaged ones --------------------------------------------


def copy_with_origin(saved, tmp_path, origin):
    """Copy of a saved folder with another origin, or without one for None."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in saved.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    mark = json.loads((copy / "compression.json").read_text())
    del mark["origin"]
    (copy / "compression.json").write_text(
        json.dumps(mark | ({} if origin is None else {"origin": origin}))
    )
    return copy


def test_a_folder_that_records_no_origin_counts_the_parameters_it_has(cached_run, tmp_path):
    outcome, saved, _ = cached_run("rounded")
    view = model_view(str(copy_with_origin(saved, tmp_path, None)))
    assert (
        view.bits_per_weight == outcome.summary.result.bits_per_weight
        and view.bits_per_parameter == outcome.summary.result.bits_per_parameter
    )


@for_each(
    "origin",
    [
        [],
        {},
        {"parameters": 10},
        {"parameters": 0, "compressed": {}, "removed": 0},
        {"parameters": 1, "compressed": {"a": -1}, "removed": 0},
        {"parameters": True, "compressed": {}, "removed": 0},
        {"parameters": 1, "compressed": {}, "removed": "0"},
        {"parameters": 1, "compressed": [], "removed": 0},
        {"parameters": 1, "compressed": {}, "removed": 0, "more": 1},
    ],
)
def test_a_damaged_origin_is_refused_in_a_sentence(origin, cached_run, tmp_path):
    with pytest.raises(PlainError, match=r"origin in compression\.json of .* is damaged"):
        model_view(str(copy_with_origin(cached_run("rounded")[1], tmp_path, origin)))


# --- repeated tensors --------------------------------------------------------------------------


def with_tensors(folder, more, **changed):
    """Add tensors to the folder's file."""
    save_file(
        load_file(folder / "model.safetensors") | more,
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changed))
    return folder


def test_a_tied_head_that_the_file_repeats_counts_once(folders, tmp_path):
    plain = run(recipe_for("llama-tied", folders["llama-tied"], tmp_path / "data", ROUNDED)).summary
    weight = load_file(folders["llama-tied"] / "model.safetensors")["model.embed_tokens.weight"]
    model = with_tensors(tiny("llama-tied", tmp_path / "model"), {"lm_head.weight": weight.clone()})
    recipe = recipe_for("llama-tied", model, tmp_path / "data", ROUNDED)
    said, view, ahead = (
        run(recipe).summary,
        model_view(str(model)),
        forecast(recipe),
    )
    header = 128  # maximum bytes for the name of the repeated tensor
    for size in (said.baseline.size_bytes, view.size_bytes):
        assert 0 <= size - plain.baseline.size_bytes <= header < weight.nbytes
    assert said.result == plain.result.model_copy(update={"compression": said.result.compression})
    assert (
        said.result.compression
        == ahead.compression
        == pytest.approx(plain.result.compression, rel=0.005)
    )
    assert said.baseline.parameters == plain.baseline.parameters
    for notes in (said.notes, view.notes):
        assert sum("lm_head.weight twice" in note for note in notes) == 1


def test_a_separate_head_counts_even_if_it_equals_the_embedding(folders, tmp_path):
    weight = load_file(folders["llama-tied"] / "model.safetensors")["model.embed_tokens.weight"]
    model = with_tensors(
        tiny("llama-tied", tmp_path / "model"),
        {"lm_head.weight": weight.clone()},
        tie_word_embeddings=False,
    )
    view = model_view(str(model))
    assert view.size_bytes == (model / "model.safetensors").stat().st_size and not view.notes
    assert view.parameters == original_parameters(folders["llama-tied"]) + weight.numel()


def test_a_tensor_in_two_shards_counts_once(tmp_path):
    model = tiny("llama", tmp_path / "model")
    tensors = load_file(model / "model.safetensors")
    names = sorted(tensors)
    halves = (names[: len(names) // 2 + 1], names[len(names) // 2 :])  # one name is in both
    shared = set(halves[0]) & set(halves[1])
    places = {
        name: f"model-{number}.safetensors" for number, half in enumerate(halves) for name in half
    }
    for number, half in enumerate(halves):
        save_file(
            {name: tensors[name] for name in half},
            model / f"model-{number}.safetensors",
            metadata={"format": "pt"},
        )
    (model / "model.safetensors").unlink()
    (model / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": places})
    )
    at, written = (
        load_model(resolve_model(str(model)), CPU, torch.float32),
        sum(file.stat().st_size for file in model.glob("*.safetensors")),
    )
    assert len(shared) == 1 and written - at.size_bytes == sum(
        tensors[name].nbytes for name in shared
    )


@pytest.mark.parametrize(
    ("architecture", "extra"),
    [
        ("llama", {"extra.junk": torch.ones(100, 100)}),
        ("llama", {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(6)}),
        (
            "gpt2",
            {
                "transformer.h.0.attn.bias": torch.ones(1, 1, 128, 128),
                "transformer.h.0.attn.masked_bias": torch.tensor(-1e4),
            },
        ),
    ],
    ids=["foreign", "angles", "masks"],
)
def test_tensors_that_the_model_does_not_use_do_not_count(architecture, extra, tmp_path):
    plain = model_view(str(tiny(architecture, tmp_path / "plain")))
    view = model_view(str(with_tensors(tiny(architecture, tmp_path / "model"), extra)))
    assert (
        0 <= view.size_bytes - plain.size_bytes <= 128 * len(extra)
        and view.parameters == plain.parameters
    )
    assert (
        not plain.notes
        and sum("does not use" in note and next(iter(extra)) in note for note in view.notes) == 1
    )


def test_biases_of_files_without_the_models_prefix_are_used(tmp_path):
    folder = tiny("gpt2", tmp_path / "model")
    bare = {
        name.removeprefix("transformer."): value
        for name, value in load_file(folder / "model.safetensors").items()
    }
    save_file(bare, folder / "model.safetensors", metadata={"format": "pt"})
    assert not model_view(str(folder)).notes


def test_a_bias_under_two_names_is_written_once_and_read_under_both(tmp_path):
    shape = {
        "hidden_size": 48,
        "intermediate_size": 172,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 130,
    }
    torch.manual_seed(0)
    model = RobertaForCausalLM(RobertaConfig(**{**TOKENS, **shape, "is_decoder": True}))
    torch.nn.init.normal_(model.lm_head.bias)
    model.eval().save_pretrained(tmp_path / "model")
    tokenizer("llama").save_pretrained(tmp_path / "model")
    recipe = recipe_for("llama", tmp_path / "model", tmp_path / "data", ROUNDED)
    outcome = run(recipe, save=tmp_path / "saved")
    names = [
        name
        for file in (tmp_path / "saved").glob("*.safetensors")
        for name in load_file(file)
        if "lm_head" in name and "bias" in name
    ]
    again = run(
        recipe.model_copy(update={"model": str(tmp_path / "saved"), "steps": ()})
    ).summary.result
    assert len([name for name in names if "layer_norm" not in name and "dense" not in name]) == 1
    assert (
        again.loss == outcome.summary.result.loss
        and again.bits_per_parameter == outcome.summary.result.bits_per_parameter
    )
    assert outcome.summary.baseline.parameters >= sum(
        parameter.numel() for parameter in model.parameters()
    )
    assert (
        outcome.summary.baseline.parameters
        - sum(parameter.numel() for parameter in model.parameters())
        < 2 * LLAMA["max_position_embeddings"] + 8
    )
