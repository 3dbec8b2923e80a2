"""Tensors with several names, in a model and in its files."""

import pytest
from safetensors.torch import load_file, save_file

from engine.models.loading import load_pretrained, resolve_model
from engine.models.shared_tensors import aliases, duplicate_bytes, entry_bytes, names_by_tensor
from tests.tiny import tiny


@pytest.mark.parametrize("architecture", ["llama", "llama-tied"])
def test_tied_tensors_are_one_group_of_names(architecture, tmp_path):
    model = load_pretrained(resolve_model(str(tiny(architecture, tmp_path / "model"))))
    groups = names_by_tensor(model)
    names = [name for group in groups for name in group]
    assert sorted(names) == sorted(model.state_dict())
    shared = [group for group in groups if len(group) > 1]
    tied = [["model.embed_tokens.weight", "lm_head.weight"]]
    assert shared == (tied if architecture == "llama-tied" else [])


@pytest.mark.parametrize("architecture", ["llama", "llama-tied"])
def test_a_tensor_that_the_file_repeats_counts_as_a_duplicate_once(architecture, tmp_path):
    folder = tiny(architecture, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    head = weights.get("lm_head.weight", weights["model.embed_tokens.weight"]).clone()
    weights = weights | {"lm_head.weight": head}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    source = resolve_model(str(folder))
    again = duplicate_bytes(source, load_pretrained(source))
    assert again == ({"lm_head.weight": head.nbytes} if architecture == "llama-tied" else {})
    assert entry_bytes(source, {"lm_head.weight", "none"}) == {"lm_head.weight": head.nbytes}


def test_names_go_with_and_without_the_prefix_of_the_base_model(tmp_path):
    model = load_pretrained(resolve_model(str(tiny("bert", tmp_path / "model"))))
    assert "bert.encoder.a" in aliases("encoder.a", model)
    assert "encoder.a" in aliases("bert.encoder.a", model)
