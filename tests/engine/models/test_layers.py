"""Which layers a model has, which of them are compressed, and how they run as they are stored."""

import gc
import weakref

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
)

from engine.errors import PlainError
from engine.models.layers import blocks_of, layers_of, selected_layers
from engine.models.loaded_model import load_model
from engine.models.loading import load_pretrained, resolve_model
from engine.models.packed_modules import Unpacking, install_packed_layers
from engine.recipe import Layers
from tests.cases import for_each
from tests.tiny import ARCHITECTURES, LANGUAGE_MODELS, VOCABULARY, tiny

CPU = torch.device("cpu")
each_architecture = for_each("architecture", ARCHITECTURES)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {
        name: tiny(name, tmp_path_factory.mktemp(name), torch.bfloat16) for name in ARCHITECTURES
    }


@pytest.fixture(scope="module")
def layers_by_model(folders):
    return {
        name: layers_of(load_pretrained(resolve_model(str(folder))))
        for name, folder in folders.items()
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
def test_layers_and_the_rest_are_the_whole_model(architecture, folders):
    folder = resolve_model(str(folders[architecture]))
    model = load_pretrained(folder)
    expected = {
        id(tensor): tensor.numel()
        for tensor in [
            *model.parameters(),
            *(b for n, b in model.named_buffers() if n in model.state_dict()),
        ]
    }
    assert load_model(folder, CPU, torch.float32).parameters == sum(expected.values())


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
    for architecture, parent in (("llama-tied", "model.embed_tokens"), ("gpt2", "transformer.wte")):
        assert {
            layer.name: layer.tied_to for layer in layers_by_model[architecture] if layer.tied_to
        } == {"lm_head": parent}
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
    expected = model(inputs)
    assert names(layers_of(model)) == ["0", "1"]
    torch.testing.assert_close(install_packed_layers(model, {}, torch.float32)(inputs), expected)


# --- what is chosen -------------------------------------------------------------------------------


@each_architecture
def test_by_default_all_but_embeddings_and_the_output_layer_are_compressed(
    architecture, layers_by_model
):
    expected = [
        layer
        for layer in layers_by_model[architecture]
        if layer.kind != "embedding" and layer.name != "lm_head"
    ]
    assert selected_layers(layers_by_model[architecture], Layers()) == expected


def test_globs_skip_layers(layers_by_model):
    left = selected_layers(layers_by_model["llama"], Layers(skip=("*.mlp.*", "lm_head")))
    assert left and all("self_attn" in layer.name for layer in left)


def test_an_embedding_is_compressed_where_it_is_included(layers_by_model):
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


def test_nothing_left_to_compress_is_said(layers_by_model):
    with pytest.raises(PlainError, match=r"No layer is left to compress"):
        selected_layers(layers_by_model["llama"], Layers(skip=("*",)))


# --- how they run ---------------------------------------------------------------------------------


def inputs_for(architecture) -> dict[str, torch.Tensor]:
    if architecture == "resnet":
        return {
            "pixel_values": torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
        }
    ids = torch.randint(4, VOCABULARY, (2, 24), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def original_model(architecture, folder):
    kinds = {"bert": AutoModelForSequenceClassification, "resnet": AutoModelForImageClassification}
    return (
        kinds.get(architecture, AutoModelForCausalLM)
        .from_pretrained(folder, dtype=torch.float32)
        .eval()
    )


@each_architecture
def test_unpacking_layers_give_the_untouched_models_logits(architecture, folders):
    inputs = inputs_for(architecture)
    with torch.inference_mode():
        expected = original_model(architecture, folders[architecture])(**inputs).logits
        result = (
            load_model(resolve_model(str(folders[architecture])), CPU, torch.float32)
            .model(**inputs)
            .logits
        )
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


@for_each("architecture", LANGUAGE_MODELS)
def test_a_bfloat16_model_computes_in_bfloat16_where_asked(architecture, folders):
    inputs = inputs_for(architecture)
    with torch.inference_mode():
        expected = (
            original_model(architecture, folders[architecture]).to(torch.bfloat16)(**inputs).logits
        )
        result = (
            load_model(resolve_model(str(folders[architecture])), CPU, torch.bfloat16)
            .model(**inputs)
            .logits
        )
    assert result.dtype == torch.bfloat16
    torch.testing.assert_close(result, expected, rtol=0.05, atol=0.05)


@each_architecture
def test_16_bit_weights_are_never_copied(architecture, folders):
    model = load_pretrained(resolve_model(str(folders[architecture])))
    weights = {
        layer.name: model.get_submodule(layer.name).weight.data_ptr() for layer in layers_of(model)
    }
    install_packed_layers(model, {}, torch.float32)
    assert {name: model.get_submodule(name).stored.weight.data_ptr() for name in weights} == weights
    assert all(model.get_submodule(name).stored.weight.dtype == torch.bfloat16 for name in weights)


def test_tied_layers_share_one_stored_weight(folders):
    model = load_model(resolve_model(str(folders["llama-tied"])), CPU, torch.float32).model
    assert model.lm_head.stored is model.model.embed_tokens.stored


@each_architecture
def test_the_layers_that_were_replaced_are_let_go(architecture, folders):
    model = load_pretrained(resolve_model(str(folders[architecture])))
    replaced = [weakref.ref(model.get_submodule(layer.name)) for layer in layers_of(model)]
    install_packed_layers(model, {}, torch.float32)
    gc.collect()
    assert replaced and all(layer() is None for layer in replaced)


@each_architecture
def test_only_what_belongs_to_no_layer_is_still_a_parameter(architecture, folders):
    model = load_model(resolve_model(str(folders[architecture])), CPU, torch.float32).model
    weights = {name for name, module in model.named_modules() if isinstance(module, Unpacking)}
    assert (
        weights
        and not {f"{name}.weight" for name in weights} & dict(model.named_parameters()).keys()
    )
    assert all(
        not parameter.requires_grad and parameter.dtype == torch.float32
        for parameter in model.parameters()
    )
