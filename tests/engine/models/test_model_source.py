"""A folder names a model, or is refused in one sentence."""

import errno
import os
import shutil
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.errors import PlainError
from engine.models import model_source as folders
from engine.models.loading import (
    check_finite,
    load_pretrained,
)
from engine.models.model_source import read_header, resolve_model
from engine.recipe import model_names as catalog
from tests.cases import for_each
from tests.model_folders import edit_json, error_message, own_copy, split_into_shards

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
def test_a_name_without_a_model_is_refused(text):
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


def test_code_next_to_a_built_in_model_is_not_read(llama):
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
    message = error_message(resolve_model, str(llama))
    assert "model.safetensors" in message or str(llama) in message  # which file or folder it is


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
    due = load_pretrained(resolve_model(str(library / "llama"))).state_dict()
    folder = resolve_model(str(shards(llama, count)))
    loaded = load_pretrained(folder)
    assert len(folder.files) == count and all(
        torch.equal(due[name], value) for name, value in loaded.state_dict().items()
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


def sparse(file: Path, header_bytes: int, size: int) -> None:
    """File of the given size that takes no space on disk."""
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", header_bytes))
        stream.truncate(size)


def test_a_header_longer_than_safetensors_reads_is_refused_unread(copy_model):
    folder = copy_model("llama")
    sparse(folder / "model.safetensors", 6 * 10**9, 7 * 10**9)
    with pytest.raises(
        PlainError, match=r"header of 6,000,000,000 bytes; at most 100,000,000 bytes"
    ):
        resolve_model(str(folder))


def test_more_tensors_in_a_header_than_any_model_has_are_refused(copy_model, monkeypatch):
    monkeypatch.setattr(folders, "MAX_TENSORS", 5)
    with pytest.raises(PlainError, match="at most .* 5 tensors"):
        read_header(copy_model("llama") / "model.safetensors", "it")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors.index.json"])
def test_a_file_that_describes_a_model_is_not_read_beyond_its_limit(copy_model, name):
    folder = copy_model("llama")
    os.truncate(folder / name, 0) if (folder / name).exists() else (folder / name).touch()
    os.truncate(folder / name, 10**11)
    with pytest.raises(
        PlainError, match=rf"{name} of .* has 100,000,000,000 bytes; at most 100,000,000 are read"
    ):
        resolve_model(str(folder))
