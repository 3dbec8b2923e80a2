"""A model either loads and works, or is refused in one sentence."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.errors import PlainError
from engine.models.loading import (
    check_finite,
    image_processor_of,
    load_pretrained,
    meta_model,
    tokenizer_of,
)
from engine.models.model_source import resolve_model
from tests.cases import for_each
from tests.model_folders import edit_json, error_message, logits, own_copy, split_into_shards
from tests.tiny import ARCHITECTURES, LANGUAGE_MODELS, VOCABULARY, tiny

ROOT = Path(__file__).resolve().parents[3]
SMAPS = Path("/proc/self/smaps_rollup")


def with_weights(folder: Path, **changes: torch.Tensor) -> Path:
    """The folder, after a change to its weights; dots are written as double underscores."""
    weights = {
        **load_file(folder / "model.safetensors"),
        **{key.replace("__", "."): value for key, value in changes.items()},
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


# What loads


@for_each("architecture", ARCHITECTURES)
def test_a_good_model_loads_at_rest_in_its_stored_dtype_and_predicts(library, architecture):
    folder = resolve_model(str(library / architecture))
    model = load_pretrained(folder)
    assert logits(model, folder).isfinite().all()
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert (
        type(model).__name__ == folder.architecture
        and folder.size_bytes == (library / architecture / "model.safetensors").stat().st_size
    )
    check_finite(folder)
    check_finite(model)


@for_each("architecture", ARCHITECTURES)
def test_a_skeleton_filled_from_the_file_is_the_loaded_model(library, architecture):
    folder = resolve_model(str(library / architecture))
    bones = meta_model(folder)
    assert all(tensor.is_meta for tensor in bones.state_dict().values())
    bones.load_state_dict(load_file(folder.files[0]), strict=False, assign=True)
    bones.tie_weights()
    assert torch.equal(logits(bones, folder), logits(load_pretrained(folder), folder))


def test_the_stored_dtype_is_kept_whatever_the_configuration_says(llama):
    folder = resolve_model(edit_json(llama, dtype="float32"))
    assert folder.dtype == "bfloat16" and load_pretrained(folder).dtype == torch.bfloat16


def test_shards_load_like_one_file(library, llama):
    whole, parts = (
        resolve_model(str(library / "llama")),
        resolve_model(str(split_into_shards(llama))),
    )
    assert len(parts.files) == 2 and torch.equal(
        logits(load_pretrained(whole), whole), logits(load_pretrained(parts), parts)
    )


def test_the_tied_model_shares_one_matrix(library):
    model = load_pretrained(resolve_model(str(library / "llama-tied")))
    assert model.lm_head.weight is model.model.embed_tokens.weight


def anonymous_bytes() -> int:
    return next(
        int(line.split()[1]) * 1024
        for line in SMAPS.read_text().splitlines()
        if line.startswith("Anonymous")
    )


@pytest.mark.skipif(not SMAPS.exists(), reason="reads Linux's memory map")
def test_loaded_weights_are_views_on_the_file_and_take_no_memory(tmp_path):
    folder = resolve_model(
        str(tiny("llama", tmp_path, dtype=torch.bfloat16, hidden_size=768, vocab_size=16384))
    )
    before = anonymous_bytes()
    model = load_pretrained(folder)
    assert folder.size_bytes > 50e6 and anonymous_bytes() - before < 0.2 * folder.size_bytes
    spans = [
        line.split()[0].split("-")
        for line in Path("/proc/self/maps").read_text().splitlines()
        if str(folder.files[0]) in line
    ]
    assert all(
        any(int(a, 16) <= p.data_ptr() < int(b, 16) for a, b in spans) for p in model.parameters()
    )


def test_changing_a_loaded_model_does_not_change_the_file(llama):
    folder = resolve_model(str(llama))
    before = folder.files[0].read_bytes()
    load_pretrained(folder).lm_head.weight.zero_()
    assert folder.files[0].read_bytes() == before


def test_loading_prints_nothing(library, llama):
    # more weights than asked for, a wrong id: both make libraries talk
    edit_json(llama, pad_token_id=VOCABULARY, num_hidden_layers=1)
    script = (
        f"from engine.models.loading import *; f = resolve_model({str(llama)!r}); "
        "load_pretrained(f); meta_model(f); "
        "tokenizer_of(f); "
    )
    script += f"image_processor_of(resolve_model({str(library / 'resnet')!r}))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# Weights that do not fit


def test_missing_weights_are_refused(llama):
    text = error_message(load_pretrained, resolve_model(edit_json(llama, num_hidden_layers=3)))
    assert "model.layers.2.input_layernorm.weight and 8 more" in text


def test_weights_of_another_shape_are_refused_with_both_shapes(llama):
    assert "(48, 172) in the file and (48, 176)" in error_message(
        load_pretrained, resolve_model(edit_json(llama, intermediate_size=176))
    )


def test_a_shard_without_its_weights_is_refused(llama):
    save_file(
        {"unrelated": torch.zeros(2)},
        split_into_shards(llama) / "a.safetensors",
        metadata={"format": "pt"},
    )
    assert "lacks" in error_message(load_pretrained, resolve_model(str(llama)))


@for_each(
    "change",
    [
        {"hidden_size": "wide"},
        {"num_attention_heads": 0},
        {"hidden_act": "magic"},
        {"hidden_size": 50},
    ],
)
@for_each("build", [load_pretrained, meta_model])
def test_a_configuration_that_makes_no_model_is_refused(change, build, library, tmp_path):
    llama = own_copy(library, "llama", tmp_path)
    assert str(llama.parent) not in error_message(
        build, resolve_model(edit_json(llama, **change))
    ).replace(repr(str(llama)), "")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_the_first_weight_that_is_no_number_is_named(llama, value):
    spoiled = torch.zeros(48, dtype=torch.bfloat16)
    spoiled[7] = value
    folder = resolve_model(str(with_weights(llama, model__norm__weight=spoiled)))
    for subject in (folder, load_pretrained(folder)):
        assert "The weight model.norm.weight of" in error_message(check_finite, subject)


# Tokens


@for_each(
    "ids",
    [
        {"pad_token_id": 999},
        {"pad_token_id": -1},
        {"eos_token_id": [2, 999]},
        {"bos_token_id": 10**9},
    ],
)
def test_special_tokens_outside_the_vocabulary_are_ignored_and_noted(ids, library, tmp_path):
    llama = own_copy(library, "llama", tmp_path)
    edit_json(llama, "generation_config.json", **ids)
    folder = resolve_model(edit_json(llama, **ids))
    model, tokenizer = load_pretrained(folder), tokenizer_of(folder)
    rows = tokenizer(["weights", "the weights of a layer"], padding=True, return_tensors="pt")
    assert model.generate(**rows, max_new_tokens=4, do_sample=False).max() < VOCABULARY
    assert [note.split()[0] for note in folder.notes] == list(ids)


def test_a_classifier_looks_past_the_padding_of_its_tokenizer_when_its_own_is_wrong(bert):
    folder = resolve_model(edit_json(bert, pad_token_id=VOCABULARY))
    assert load_pretrained(folder).config.pad_token_id == tokenizer_of(folder).pad_token_id == 0


def test_a_tokenizer_without_padding_gets_one(llama):
    edit_json(llama, "tokenizer_config.json", without=("pad_token",))
    tokenizer = tokenizer_of(resolve_model(str(llama)))
    assert (
        tokenizer(["a", "of a layer"], padding=True)["input_ids"][0][-1]
        == tokenizer.pad_token_id
        < VOCABULARY
    )


@for_each("architecture", [*LANGUAGE_MODELS, "bert"])
def test_a_model_without_tokenizer_is_refused_rather_than_given_an_empty_one(
    library, tmp_path, architecture
):
    folder = shutil.copytree(library / architecture, tmp_path / architecture)
    (folder / "tokenizer.json").unlink()
    assert "has no tokenizer" in error_message(tokenizer_of, resolve_model(str(folder)))


def test_a_broken_tokenizer_is_refused(llama):
    (llama / "tokenizer.json").write_text("{")
    assert "cannot be read" in error_message(tokenizer_of, resolve_model(str(llama)))


def test_a_tokenizer_larger_than_the_embedding_is_refused(tmp_path):
    folder = resolve_model(str(tiny("llama", tmp_path, vocab_size=VOCABULARY - 1)))
    assert "288 tokens and the model embeds 287" in error_message(tokenizer_of, folder)


def test_an_added_token_without_embedding_is_read_as_plain_text(llama):
    tokenizer = tokenizer_of(resolve_model(str(llama)))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<picture>"]})
    tokenizer.save_pretrained(llama)
    assert max(tokenizer("<picture>")["input_ids"]) == VOCABULARY
    assert max(tokenizer_of(resolve_model(str(llama)))("<picture>")["input_ids"]) < VOCABULARY


def test_images_are_preprocessed_without_torchvision(library):
    processor = image_processor_of(resolve_model(str(library / "resnet")))
    assert processor(torch.zeros(1, 8, 8), return_tensors="pt")["pixel_values"].shape == (
        1,
        1,
        16,
        16,
    )
    assert "torchvision" not in sys.modules


def test_a_missing_or_broken_image_processor_is_refused(library, tmp_path):
    folder = resolve_model(str(shutil.copytree(library / "resnet", tmp_path / "resnet")))
    (folder.path / "preprocessor_config.json").write_text("{")
    assert "is not valid JSON" in error_message(image_processor_of, folder)
    (folder.path / "preprocessor_config.json").unlink()
    assert "has no preprocessor_config.json" in error_message(image_processor_of, folder)


def test_images_are_not_enlarged_beyond_memory(copy_model):
    folder = copy_model("vit")
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(
        json.dumps(processor | {"size": {"height": 10**6, "width": 10**6}})
    )
    with pytest.raises(PlainError, match="preprocessor_config.json of .* sets .* 1,000,000 pixels"):
        image_processor_of(resolve_model(str(folder)))
