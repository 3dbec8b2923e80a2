"""Which layers a model has, which of them are compressed, and how they run as they are stored."""

import pytest
import torch
from torch import nn

from engine.errors import PlainError
from engine.models.layers import blocks_of, layers_of, selected_layers
from engine.models.loaded_model import load_model
from engine.models.loading import load_pretrained, resolve_model
from engine.models.packed_modules import install_packed_layers
from engine.recipe import Layers
from tests.cases import for_each
from tests.tiny import ARCHITECTURES, VOCABULARY

CPU = torch.device("cpu")
each_architecture = for_each("architecture", ARCHITECTURES)


@pytest.fixture(scope="module")
def layers_by_model(bfloat16_folders):
    return {
        name: layers_of(load_pretrained(resolve_model(str(folder))))
        for name, folder in bfloat16_folders.items()
    }


def names(layers) -> list[str]:
    return [layer.name for layer in layers]


def held_by_blocks(layers) -> list[str]:
    return [layer.name for block in blocks_of(layers) for layer in block]


# --- what is found --------------------------------------------------------------------------------


def test_linear_layers_embeddings_conv1d_and_convolutions_are_seen(layers_by_model):
    kinds = {name: {layer.kind for layer in layers} for name, layers in layers_by_model.items()}
    assert (
        kinds["llama"] == kinds["qwen2"] == kinds["opt"] == kinds["bert"] == {"linear", "embedding"}
    )
    assert kinds["gpt2"] == {"conv1d", "linear", "embedding"} and kinds["resnet"] == {
        "conv2d",
        "linear",
    }


@each_architecture
def test_layers_and_the_rest_are_the_whole_model(architecture, bfloat16_folders):
    folder = resolve_model(str(bfloat16_folders[architecture]))
    model = load_pretrained(folder)
    due = {
        id(tensor): tensor.numel()
        for tensor in [
            *model.parameters(),
            *(b for n, b in model.named_buffers() if n in model.state_dict()),
        ]
    }
    assert load_model(folder, CPU, torch.float32).parameters == sum(due.values())


def test_shapes_have_output_channels_first(layers_by_model):
    shapes = {layer.name: layer.shape for layers in layers_by_model.values() for layer in layers}
    assert shapes["model.layers.0.mlp.up_proj"] == (172, 48) and shapes[
        "model.layers.0.mlp.down_proj"
    ] == (48, 172)
    assert shapes["transformer.h.0.mlp.c_fc"] == (172, 48) and shapes[
        "transformer.h.0.mlp.c_proj"
    ] == (48, 172)
    assert shapes["resnet.embedder.embedder.convolution"] == (8, 1, 7, 7) and shapes[
        "model.embed_tokens"
    ] == (VOCABULARY, 48)


def test_a_tied_tensor_is_counted_once(layers_by_model):
    for architecture, holder in (("llama-tied", "model.embed_tokens"), ("gpt2", "transformer.wte")):
        assert {
            layer.name: layer.tied_to for layer in layers_by_model[architecture] if layer.tied_to
        } == {"lm_head": holder}
        assert "lm_head" not in held_by_blocks(layers_by_model[architecture])
    assert not any(layer.tied_to for layer in layers_by_model["llama"])


def test_blocks_are_what_a_model_repeats(layers_by_model):
    blocks = {
        architecture: {layer.block for layer in layers}
        for architecture, layers in layers_by_model.items()
    }
    assert blocks["llama"] == {"", "model.layers.0", "model.layers.1"} and blocks["gpt2"] == {
        "",
        "transformer.h.0",
        "transformer.h.1",
    }
    assert blocks["resnet"] >= {"", "resnet.encoder.stages.0", "resnet.encoder.stages.1"}


@each_architecture
def test_blocks_hold_every_layer_once_and_in_order(architecture, layers_by_model):
    assert held_by_blocks(layers_by_model[architecture]) == names(
        layer for layer in layers_by_model[architecture] if not layer.tied_to
    )


def test_a_convolution_with_reflect_padding_is_a_layer():
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect"), nn.Conv2d(2, 2, 3, padding=1)
    )
    inputs = torch.randn(1, 1, 8, 8)
    due = model(inputs)
    assert names(layers_of(model)) == ["0", "1"]
    torch.testing.assert_close(install_packed_layers(model, {}, torch.float32)(inputs), due)


# --- what is chosen -------------------------------------------------------------------------------


@each_architecture
def test_by_default_all_but_embeddings_and_the_output_layer_are_compressed(
    architecture, layers_by_model
):
    due = [
        layer
        for layer in layers_by_model[architecture]
        if layer.kind != "embedding" and layer.name != "lm_head"
    ]
    assert selected_layers(layers_by_model[architecture], Layers()) == due


def test_globs_skip_layers(layers_by_model):
    left = selected_layers(layers_by_model["llama"], Layers(skip=("*.mlp.*", "lm_head")))
    assert left and all("self_attn" in layer.name for layer in left)


def test_an_included_embedding_is_compressed(layers_by_model):
    assert "model.embed_tokens" in names(
        selected_layers(layers_by_model["llama"], Layers(include=("*embed*",)))
    )
    assert "model.embed_tokens" not in names(
        selected_layers(
            layers_by_model["llama"], Layers(skip=("*embed*", "lm_head"), include=("*embed*",))
        )
    )


@pytest.mark.parametrize("pattern", ["lm_head", "model.embed_tokens", "*embed*"])
def test_skipping_either_name_of_a_tied_tensor_skips_both(pattern, layers_by_model):
    both = Layers(skip=(), include=("model.embed_tokens",))
    assert "model.embed_tokens" in names(selected_layers(layers_by_model["llama-tied"], both))
    left = selected_layers(
        layers_by_model["llama-tied"], Layers(skip=(pattern,), include=("model.embed_tokens",))
    )
    assert not {"model.embed_tokens", "lm_head"} & set(names(left))


def test_including_either_name_of_a_tied_tensor_includes_it(layers_by_model):
    assert "model.embed_tokens" in names(
        selected_layers(layers_by_model["llama-tied"], Layers(skip=(), include=("lm_head",)))
    )


@pytest.mark.parametrize("wanted", [Layers(skip=("no.such.*",)), Layers(include=("*.w3",))])
def test_a_pattern_that_names_no_layer_is_answered_in_a_sentence(wanted, layers_by_model):
    with pytest.raises(
        PlainError, match=r"No layer is called '.*'; this model's are named like '.*'"
    ):
        selected_layers(layers_by_model["llama"], wanted)


def test_nothing_left_to_compress_gives_a_message(layers_by_model):
    with pytest.raises(PlainError, match=r"No layer is left to compress"):
        selected_layers(layers_by_model["llama"], Layers(skip=("*",)))
