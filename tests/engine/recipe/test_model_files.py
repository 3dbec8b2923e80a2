"""Files and folders that are no model are named by what they are."""

import json
from pathlib import Path
from tempfile import mkdtemp

import pytest

from engine.recipe.model_files import (
    MAX_NAMED,
    base_of_adapter,
    complete_shards,
    file_refusal,
    folder_without_config,
    folder_without_weights,
)
from tests.cases import for_each


def shard(number: int, count: int, stem: str = "model") -> str:
    return f"{stem}-{number:05}-of-{count:05}.safetensors"


@pytest.fixture
def folder(tmp_path):
    """Makes folders of empty files."""

    def make(*names: str) -> Path:
        path = Path(mkdtemp(dir=tmp_path))
        for name in names:
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).touch()
        return path

    return make


@for_each(
    ("name", "content", "words"),
    [
        ("model.bin", b"PK", "a pickle, which can run code"),
        ("model.gguf", b"", "a GGUF file"),
        ("model", b"GGUF\x03", "a GGUF file"),  # by its first bytes
        ("model.PTH", b"", "a pickle"),
        ("model.xyz", b"abcd", "is a file; give the directory"),
    ],
)
def test_a_file_is_known_by_its_first_bytes_or_its_suffix(name, content, words, tmp_path):
    (tmp_path / name).write_bytes(content)
    assert words in file_refusal(tmp_path / name, "it")


@for_each(
    ("files", "words"),
    [
        (["adapter_config.json"], "contains an adapter, not a model"),
        (["model_index.json"], "is a diffusers pipeline"),
        (["model.onnx", "model.safetensors"], "only model.onnx, an ONNX graph"),
        (["model.safetensors"], "has weights but no config.json"),
        (["optimizer.pt", "tokenizer.json"], "contains a tokenizer but no model"),
        (["a/config.json", "b/config.json", "c/x"], "its folders a, b do"),
        (["snapshots/0123/config.json"], "its folders snapshots/0123 do"),
        (["notes.md"], "is not a Hugging Face model"),
    ],
    ids=str,
)
def test_a_folder_without_config_says_what_it_holds(files, words, folder):
    said = folder_without_config(folder(*files), "it")
    assert words in said and said.endswith(".")


def test_of_many_models_in_a_folder_some_are_named_and_all_counted(folder):
    said = folder_without_config(folder(*(f"m{n}/config.json" for n in range(9))), "it")
    assert f"m0, m1, m2 and {9 - MAX_NAMED} more" in said


@for_each(
    ("files", "words"),
    [
        ([shard(1, 3), shard(3, 3)], f"has 2 of 3 shards and lacks {shard(2, 3)}"),
        (
            [shard(1, 2, "other"), shard(2, 2, "other")],
            "2 of 2 shards and has no model.safetensors.index",
        ),
        (["weights.safetensors"], "no model.safetensors but weights.safetensors; rename it"),
        (["pytorch_model.bin"], "only pytorch_model.bin, a pickle"),
        (["training_args.bin"], "save the model with save_pretrained"),
        (["adapter_config.json", "weights.safetensors"], "contains an adapter"),
    ],
    ids=str,
)
def test_a_folder_without_weights_says_what_is_missing(files, words, folder):
    assert words in folder_without_weights(folder(*files), "it")


@pytest.mark.parametrize("count", [1, 3, 12])
def test_shards_are_complete_only_all_together(count, folder):
    names = [shard(number, count) for number in range(1, count + 1)]
    path = folder(*names, "config.json", shard(1, 2, "other"))
    assert [file.name for file in complete_shards(path)] == names
    (path / names[-1]).unlink()
    assert complete_shards(path) == ()


def test_shards_of_two_counts_are_not_complete(folder):
    assert complete_shards(folder(shard(1, 1), shard(2, 2))) == ()


@for_each(
    ("content", "named"),
    [
        ({"base_model_name_or_path": "org/base"}, "'org/base'"),
        ({"base_model_name_or_path": 3}, ""),
        ({}, ""),
        ([], ""),
    ],
)
def test_an_adapters_base_is_named_if_its_configuration_does(content, named, tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps(content))
    assert base_of_adapter(tmp_path / "adapter_config.json") == named
    assert base_of_adapter(tmp_path / "missing.json") == ""
