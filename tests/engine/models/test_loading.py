"""A model either loads and works, or is refused in one sentence."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.errors import PlainError
from engine.models.loading import (
    ModelSource,
    check_finite,
    image_processor_of,
    load_pretrained,
    meta_model,
    resolve_model,
    tokenizer_of,
)
from engine.recipe import model_names as catalog
from tests.cases import for_each
from tests.hub import Hub, serving
from tests.tiny import ARCHITECTURES, LANGUAGE_MODELS, VOCABULARY, tiny

ROOT = Path(__file__).resolve().parents[3]
SMAPS = Path("/proc/self/smaps_rollup")


@pytest.fixture(scope="session")
def library(tmp_path_factory) -> Path:
    """One folder of every architecture."""
    shelf = tmp_path_factory.mktemp("library")
    for architecture in ARCHITECTURES:
        tiny(architecture, shelf / architecture, dtype=torch.bfloat16)
    return shelf


def own_copy(library: Path, architecture: str, folder: Path) -> Path:
    """A model of the test's own, to spoil."""
    return shutil.copytree(library / architecture, folder / architecture)


@pytest.fixture
def llama(library, tmp_path) -> Path:
    return own_copy(library, "llama", tmp_path)


@pytest.fixture
def bert(library, tmp_path) -> Path:
    return own_copy(library, "bert", tmp_path)


def edit_json(
    folder: Path, file: str = "config.json", without: tuple[str, ...] = (), **changes
) -> str:
    """The folder's reference, after a change to one of its JSON files."""
    content = {**json.loads((folder / file).read_text()), **changes}
    (folder / file).write_text(
        json.dumps({key: value for key, value in content.items() if key not in without})
    )
    return str(folder)


def with_weights(folder: Path, **changes: torch.Tensor) -> Path:
    """The folder, after a change to its weights; dots are written as double underscores."""
    weights = {
        **load_file(folder / "model.safetensors"),
        **{key.replace("__", "."): value for key, value in changes.items()},
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def split_into_shards(folder: Path) -> Path:
    """The folder, with its weights in two files and an index."""
    weights = load_file(folder / "model.safetensors")
    names = sorted(weights)
    halves = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in halves.items():
        save_file({name: weights[name] for name in part}, folder / file, metadata={"format": "pt"})
    index = {
        "metadata": {},
        "weight_map": {name: file for file, part in halves.items() for name in part},
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()
    return folder


def error_message(call, *given) -> str:
    """The one sentence in which it was refused: whole, on one line, without our paths or
    tracebacks.
    """
    with pytest.raises(PlainError) as caught:
        call(*given)
    text = str(caught.value)
    assert (
        text.endswith(".")
        and "\n" not in text
        and "Traceback" not in text
        and "site-packages" not in text
    )
    assert caught.value.__cause__ is None and len(text) < 450
    return text


def inputs(folder: ModelSource, rows: int = 2) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    if folder.kind == "image-classification":
        return {"pixel_values": torch.randn(rows, 1, 16, 16, generator=draw).bfloat16()}
    return {"input_ids": torch.randint(4, VOCABULARY, (rows, 16), generator=draw)}


@torch.no_grad()
def logits(model: torch.nn.Module, folder: ModelSource) -> torch.Tensor:
    return model(**inputs(folder)).logits


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


def test_changing_a_loaded_model_leaves_the_file_alone(llama):
    folder = resolve_model(str(llama))
    before = folder.files[0].read_bytes()
    load_pretrained(folder).lm_head.weight.zero_()
    assert folder.files[0].read_bytes() == before


def test_loading_says_nothing_on_the_terminal(library, llama):
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


# Names and revisions


def test_a_trailing_slash_a_tilde_and_spaces_name_the_same_model(llama, monkeypatch):
    monkeypatch.setenv("HOME", str(llama.parent))
    named = [resolve_model(text) for text in (str(llama), f"{llama}/", "~/llama", f" {llama} ")]
    assert {(folder.path, folder.revision) for folder in named} == {(llama, named[0].revision)}


def test_a_local_revision_changes_when_a_file_does(llama):
    before = resolve_model(str(llama)).revision
    assert (
        resolve_model(str(llama)).revision == before and len(before) == 12 and int(before, 16) >= 0
    )
    os.utime(llama / "model.safetensors", (1, 1))
    assert resolve_model(str(llama)).revision != before


def test_a_bundled_model_is_found_in_the_assets(library, monkeypatch, tmp_path):
    monkeypatch.setattr(catalog, "ASSETS", tmp_path)
    assert "missing from assets/models" in error_message(resolve_model, "bundled:docs-lm")
    shutil.copytree(library / "llama-tied", tmp_path / "models" / "docs-lm")
    assert resolve_model("bundled:docs-lm").path == tmp_path / "models" / "docs-lm"


@for_each(
    "text",
    ["/no/such/place", "bundled:nothing", "~nobody-here/model", "a b", "", "x" * 300, "../..//x"],
)
def test_what_names_no_model_is_refused(text):
    assert len(error_message(resolve_model, text)) < 300


def test_a_file_is_refused_with_the_advice_to_name_its_directory(llama, monkeypatch):
    monkeypatch.chdir(llama.parent)
    assert "give the directory" in error_message(resolve_model, "llama/model.safetensors")


# Bad folders


def test_an_empty_directory_is_refused(tmp_path):
    assert "is empty" in error_message(resolve_model, str(tmp_path))


def test_a_directory_without_configuration_is_refused(llama):
    (llama / "config.json").unlink()
    assert "no config.json" in error_message(resolve_model, str(llama))


@for_each("text", ["{", "\xff\xfe", "[" * 100_000, "[1]", "null"])
def test_a_broken_configuration_is_refused(text, library, tmp_path):
    llama = own_copy(library, "llama", tmp_path)
    (llama / "config.json").write_bytes(text.encode("latin1"))
    assert "config.json" in error_message(resolve_model, str(llama))


@for_each("architectures", [None, [], "LlamaForCausalLM", [3]])
def test_a_configuration_that_names_no_architecture_is_refused(architectures, library, tmp_path):
    llama = own_copy(library, "llama", tmp_path)
    assert "needs architectures" in error_message(
        resolve_model, edit_json(llama, architectures=architectures)
    )


@for_each(
    "architecture", ["T5ForConditionalGeneration", "BertModel", "BertForPreTraining", "x" * 500]
)
def test_another_kind_of_model_is_refused_and_the_allowed_kinds_are_listed(
    architecture, library, tmp_path
):
    llama = own_copy(library, "llama", tmp_path)
    assert "ForSequenceClassification" in error_message(
        resolve_model, edit_json(llama, architectures=[architecture])
    )


def test_an_unknown_model_type_is_refused(llama):
    assert "'hyperllama'" in error_message(resolve_model, edit_json(llama, model_type="hyperllama"))


def test_a_model_type_without_the_named_kind_is_refused(llama):
    assert "no image-classification model" in error_message(
        resolve_model, edit_json(llama, architectures=["LlamaForImageClassification"])
    )


@pytest.mark.parametrize("family", ["hyperllama", "llama"])
def test_a_model_with_code_of_its_own_is_refused(llama, family):
    own = {
        "architectures": ["HyperLlamaForCausalLM"],
        "auto_map": {"AutoModelForCausalLM": "modeling.HyperLlamaForCausalLM"},
    }
    assert "custom code" in error_message(resolve_model, edit_json(llama, model_type=family, **own))


def test_code_shipped_beside_a_built_in_model_is_left_unread(llama):
    (llama / "modeling.py").write_text("raise SystemExit('ran')")
    folder = resolve_model(
        edit_json(
            llama,
            auto_map={
                "AutoConfig": "modeling.C",
                "AutoModelForCausalLM": "modeling.LlamaForCausalLM",
            },
        )
    )
    assert type(load_pretrained(folder)).__module__.startswith("transformers.")


def test_a_model_that_others_have_quantized_is_refused(llama):
    assert "already compressed (gptq)" in error_message(
        resolve_model, edit_json(llama, quantization_config={"quant_method": "gptq", "bits": 4})
    )


def test_weights_in_eight_bits_are_refused(llama):
    save_file({"x": torch.zeros(64, dtype=torch.int8)}, llama / "model.safetensors")
    assert "stored as I8" in error_message(resolve_model, str(llama))


def test_a_model_we_compressed_is_known_and_not_loaded_as_a_plain_one(llama):
    (llama / "compression.json").write_text("{}")
    folder = resolve_model(str(llama))
    assert folder.packed and "compressed already" in error_message(load_pretrained, folder)


def test_pickled_weights_are_refused(llama):
    (llama / "model.safetensors").rename(llama / "pytorch_model.bin")
    assert "only pytorch_model.bin" in error_message(resolve_model, str(llama))


def test_a_folder_without_weights_is_refused(llama):
    (llama / "model.safetensors").unlink()
    assert "no model.safetensors" in error_message(resolve_model, str(llama))


@for_each("kept", [0, 4, 8, 100, 5000, -1])
def test_a_weight_file_cut_short_anywhere_is_refused_before_loading(kept, library, tmp_path):
    llama = own_copy(library, "llama", tmp_path)
    content = (llama / "model.safetensors").read_bytes()
    (llama / "model.safetensors").write_bytes(content[:kept])
    assert "download the model again" in error_message(resolve_model, str(llama))


@for_each(
    "header", [b"[]", b"{}", b'{"a": 1}', b'{"a": {"dtype": "F32", "data_offsets": []}}', b"\xff"]
)
def test_a_weight_file_with_a_senseless_header_is_refused(header, library, tmp_path):
    llama = own_copy(library, "llama", tmp_path)
    (llama / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    error_message(resolve_model, str(llama))


def test_a_git_lfs_pointer_is_called_by_its_name(llama):
    (llama / "model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    )
    assert "git lfs pull" in error_message(resolve_model, str(llama))


def test_a_missing_shard_is_named(llama):
    (split_into_shards(llama) / "b.safetensors").unlink()
    assert "b.safetensors" in error_message(resolve_model, str(llama))


@for_each("weight_map", [None, {"x": 3}, {"x": "../llama/a.safetensors"}, ["a"]])
def test_an_index_that_maps_nowhere_is_refused(weight_map, library, tmp_path):
    llama = own_copy(library, "llama", tmp_path)
    assert "must map weights" in error_message(
        resolve_model,
        edit_json(split_into_shards(llama), "model.safetensors.index.json", weight_map=weight_map),
    )


def test_a_folder_that_may_not_be_read_is_refused(llama, monkeypatch):
    def raise_permission_error(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", raise_permission_error)
    assert (
        error_message(resolve_model, str(llama))
        == f"The files of {str(llama)!r} cannot be read: Permission denied."
    )


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


def test_pictures_are_prepared_without_torchvision(library):
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


# The Hub


@pytest.fixture
def hub(library, tmp_path, monkeypatch):
    """A Hub with every tiny model, and an empty cache."""
    with serving({f"tiny/{name}": library / name for name in ARCHITECTURES}) as served:
        served.point_here(monkeypatch, tmp_path / "cache")
        yield served


def test_a_model_from_the_hub_is_the_same_model(hub: Hub, library):
    here, there, events = resolve_model(str(library / "llama")), None, []
    there = resolve_model("tiny/llama", events.append)
    assert there.revision == hub.commit("tiny/llama") and torch.equal(
        logits(load_pretrained(here), here), logits(load_pretrained(there), there)
    )
    assert tokenizer_of(there).get_vocab() == tokenizer_of(here).get_vocab()
    assert events and {event.model for event in events} == {"tiny/llama"}
    assert all(0 < event.done <= event.total for event in events)


def test_a_model_is_fetched_once(hub: Hub):
    first = resolve_model("tiny/bert")
    fetched = list(hub.fetched)
    assert (
        resolve_model("tiny/bert").files
        == resolve_model(f"tiny/bert@{first.revision}").files
        == first.files
    )
    assert hub.fetched == fetched


def test_pickles_and_code_are_never_fetched(hub: Hub, llama):
    for name in ("pytorch_model.bin", "modeling.py", "consolidated.safetensors"):
        (llama / name).write_bytes(b"x")
    hub.models["tiny/own"] = llama
    resolve_model("tiny/own")
    assert not {"pytorch_model.bin", "modeling.py", "consolidated.safetensors"} & set(hub.fetched)


def test_a_model_with_nothing_but_pickles_is_refused(hub: Hub, llama):
    (llama / "model.safetensors").rename(llama / "pytorch_model.bin")
    hub.models["tiny/own"] = llama
    assert "the only weight format that is read" in error_message(resolve_model, "tiny/own")


def test_a_gated_model_is_refused_with_the_way_in(hub: Hub):
    hub.gated.add("tiny/llama")
    assert "'tiny/llama' is gated: accept its conditions" in error_message(
        resolve_model, "tiny/llama"
    )


def test_an_unknown_model_is_refused(hub: Hub):
    assert "shows no model 'tiny/nothing'" in error_message(resolve_model, "tiny/nothing")


def test_an_unknown_revision_is_refused(hub: Hub):
    assert "'tiny/llama' has no revision 'v9'" in error_message(resolve_model, "tiny/llama@v9")


@pytest.mark.parametrize("text", ["./llama", "a--b", "tiny/.git"])
def test_what_cannot_be_a_hub_id_is_refused(hub: Hub, text):
    assert "neither a directory nor a Hub id" in error_message(resolve_model, text)


def test_a_hub_that_fails_is_told_apart_from_one_that_is_away(hub: Hub, monkeypatch):
    hub.failing = True
    assert "the Hub failed (status 500)" in error_message(resolve_model, "tiny/llama")
    hub.url = "http://127.0.0.1:9"  # the discard port: nobody listens
    hub.point_here(monkeypatch, Path("/nonexistent"))
    assert "the Hub cannot be reached" in error_message(resolve_model, "tiny/llama")


def test_the_cache_serves_when_the_hub_is_away_and_an_incomplete_one_is_refused(hub: Hub):
    first = resolve_model("tiny/llama")
    hub.failing = True
    assert resolve_model("tiny/llama").files == first.files
    first.files[0].unlink()
    assert "only partly in the cache" in error_message(resolve_model, "tiny/llama")


def test_a_report_that_stops_the_run_stops_the_download(hub: Hub):
    def stop(text: str) -> None:
        raise PlainError("Stopped.")

    assert error_message(resolve_model, "tiny/llama", stop) == "Stopped."


def test_the_environment_decides_endpoint_cache_and_offline(hub: Hub, tmp_path):
    script = "import sys; from engine.models.model_source import *\nfor model in sys.argv[1:]:\n"
    script += "    try: print(resolve_model(model).path)\n    except PlainError as e: print(e)"

    def answers(*models: str, **more: str) -> list[str]:
        environment = {**os.environ, **hub.environment(tmp_path / "home"), **more}
        command = [sys.executable, "-c", script, *models]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.stderr == ""
        return done.stdout.splitlines()

    (fetched,) = answers("tiny/llama")
    cached, refusal = answers("tiny/llama", "tiny/opt", HF_HUB_OFFLINE="1")
    assert fetched.startswith(str(tmp_path / "home")) and cached == fetched
    assert "HF_HUB_OFFLINE forbids" in refusal


# What was found instead of a model


def shards(folder: Path, count: int = 3, stem: str = "model") -> Path:
    """The folder, its weights in numbered files and without an index."""
    weights = load_file(folder / "model.safetensors")
    for number in range(count):
        part = {name: weights[name] for name in sorted(weights)[number::count]}
        save_file(
            part,
            folder / f"{stem}-{number + 1:05}-of-{count:05}.safetensors",
            metadata={"format": "pt"},
        )
    (folder / "model.safetensors").unlink()
    return folder


@pytest.mark.parametrize("count", [1, 3])
def test_shards_without_an_index_are_read_when_all_are_there(llama, library, count):
    expected = load_pretrained(resolve_model(str(library / "llama"))).state_dict()
    folder = resolve_model(str(shards(llama, count)))
    loaded = load_pretrained(folder)
    assert len(folder.files) == count and all(
        torch.equal(expected[name], value) for name, value in loaded.state_dict().items()
    )
    check_finite(folder)


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_a_missing_shard_without_an_index_is_named(llama, missing):
    name = f"model-{missing:05}-of-00003.safetensors"
    (shards(llama) / name).unlink()
    assert f"has 2 of 3 shards and lacks {name}" in error_message(resolve_model, str(llama))


def test_shards_of_another_name_are_not_reported_as_pickles(llama):
    text = error_message(resolve_model, str(shards(llama, stem="consolidated")))
    assert "model.safetensors.index.json" in text and "pickle" not in text


FILES = {
    "model.gguf": (b"GGUF\x03", "is a GGUF file (llama.cpp)"),
    "weights": (b"GGUF\x03", "is a GGUF file"),
    "old.ggml": (b"", "is a GGML file"),
    "model.onnx": (b"\x08", "is an ONNX graph"),
    "pytorch_model.bin": (b"PK", "is a pickle, which can run code"),
    "model.pt": (b"PK", "is a pickle"),
    "tf_model.h5": (b"\x89HDF", "is a TensorFlow weight file"),
    "flax_model.msgpack": (b"", "is a Flax weight file"),
    "model.tar.gz": (b"", "is an archive, and models are read from a directory"),
    "model.safetensors": (b"", "is a file; give the directory that contains it"),
}


@for_each("name", FILES)
def test_a_file_that_is_not_a_model_is_named_by_its_format(name, tmp_path):
    content, words = FILES[name]
    (tmp_path / name).write_bytes(content)
    assert words in error_message(resolve_model, str(tmp_path / name))


FOLDERS = {
    "gguf": ({"model.gguf": ""}, "contains only model.gguf, a GGUF file"),
    "gguf beside a config": (
        {"config.json": None, "model.gguf": ""},
        "has only model.gguf, a GGUF file",
    ),
    "onnx beside a config": (
        {"config.json": None, "model.onnx": ""},
        "has only model.onnx, an ONNX graph",
    ),
    "flax": (
        {"config.json": None, "flax_model.msgpack": ""},
        "has only flax_model.msgpack, a Flax weight file",
    ),
    "tensorflow": (
        {"config.json": None, "tf_model.h5": ""},
        "has only tf_model.h5, a TensorFlow weight file",
    ),
    "checkpoint": (
        {"config.json": None, "training_args.bin": "", "optimizer.pt": ""},
        "has a config.json but no model.safetensors",
    ),
    "adapter": (
        {
            "adapter_config.json": '{"base_model_name_or_path": "some/base"}',
            "adapter_model.safetensors": "",
        },
        "contains an adapter for 'some/base'",
    ),
    "adapter beside a config": (
        {"config.json": None, "adapter_config.json": "[]"},
        "contains an adapter, not a model",
    ),
    "diffusers": ({"model_index.json": "{}", "unet/config.json": "{}"}, "is a diffusers pipeline"),
    "tokenizer": ({"tokenizer.json": "{}"}, "contains a tokenizer but no model"),
    "weights alone": ({"model.safetensors": ""}, "has weights but no config.json"),
    "another name": (
        {"config.json": None, "weights.safetensors": ""},
        "has no model.safetensors but weights.safetensors",
    ),
    "folders": ({"a/config.json": "{}", "b/config.json": "{}"}, "its folders a, b do"),
    "cache": (
        {"snapshots/abc/config.json": "{}", "refs/main": "abc"},
        "its folders snapshots/abc do",
    ),
    "anything": ({"notes.txt": ""}, "has no config.json"),
}


@for_each("name", FOLDERS)
def test_a_folder_that_is_not_a_model_is_named_by_its_content(name, tmp_path, library):
    files, words = FOLDERS[name]
    for file, text in files.items():
        (tmp_path / file).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / file).write_text(
            (library / "llama" / "config.json").read_text() if text is None else text
        )
    assert words in error_message(resolve_model, str(tmp_path))
