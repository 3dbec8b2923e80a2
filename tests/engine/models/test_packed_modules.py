"""Layers run as they are stored, and small models unpacked once while they are measured."""

import gc
import weakref

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
)

from engine.events import ProgressEvent
from engine.models.layers import layers_of
from engine.models.loaded_model import load_model
from engine.models.loading import load_pretrained, resolve_model
from engine.models.packed_modules import (
    Unpacking,
    dense_bytes,
    install_packed_layers,
    keep_unpacked,
    unpacking_layers,
)
from engine.step.run_context import RunContext
from tests.cases import for_each
from tests.recipes import model_and_recipe
from tests.tiny import ARCHITECTURES, LANGUAGE_MODELS, VOCABULARY

CPU = torch.device("cpu")


def test_a_small_model_is_unpacked_once_while_it_is_measured_and_a_large_one_is_not(
    tmp_path, monkeypatch
):
    folder, model, recipe = model_and_recipe(tmp_path)
    assert dense_bytes(model) == 4 * sum(
        layer.stored.shape[0] * layer.stored.shape[1] for layer in unpacking_layers(model)
    )
    held = []
    monkeypatch.setattr(
        "engine.step.run_context.evaluate",
        lambda task, model, *rest: held.append(unpacking_layers(model)[1].unpacked is not None),
    )
    RunContext(recipe, folder).evaluate(model, folder, ProgressEvent("measuring-result"))
    monkeypatch.setattr("engine.step.run_context.MAX_UNPACKED_BYTES", dense_bytes(model) - 1)
    RunContext(recipe, folder).evaluate(model, folder, ProgressEvent("measuring-result"))
    assert held == [True, False] and all(
        layer.unpacked is None for layer in unpacking_layers(model)
    )


def test_held_dense_or_not_the_answers_are_the_same_to_the_bit(tmp_path):
    _, model, _ = model_and_recipe(tmp_path)
    ids = torch.arange(5, 25)[None]
    with torch.inference_mode():
        before = model(ids).logits
        with keep_unpacked(model):
            assert torch.equal(model(ids).logits, before)


each_architecture = for_each("architecture", ARCHITECTURES)


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
def test_unpacking_layers_give_the_untouched_models_logits(architecture, bfloat16_folders):
    inputs = inputs_for(architecture)
    with torch.inference_mode():
        due = original_model(architecture, bfloat16_folders[architecture])(**inputs).logits
        result = (
            load_model(resolve_model(str(bfloat16_folders[architecture])), CPU, torch.float32)
            .model(**inputs)
            .logits
        )
    torch.testing.assert_close(result, due, rtol=1e-5, atol=1e-5)


@for_each("architecture", LANGUAGE_MODELS)
def test_a_bfloat16_model_computes_in_bfloat16_where_asked(architecture, bfloat16_folders):
    inputs = inputs_for(architecture)
    with torch.inference_mode():
        due = (
            original_model(architecture, bfloat16_folders[architecture])
            .to(torch.bfloat16)(**inputs)
            .logits
        )
        result = (
            load_model(resolve_model(str(bfloat16_folders[architecture])), CPU, torch.bfloat16)
            .model(**inputs)
            .logits
        )
    assert result.dtype == torch.bfloat16
    torch.testing.assert_close(result, due, rtol=0.05, atol=0.05)


@each_architecture
def test_16_bit_weights_are_never_copied(architecture, bfloat16_folders):
    model = load_pretrained(resolve_model(str(bfloat16_folders[architecture])))
    held = {
        layer.name: model.get_submodule(layer.name).weight.data_ptr() for layer in layers_of(model)
    }
    install_packed_layers(model, {}, torch.float32)
    assert {name: model.get_submodule(name).stored.weight.data_ptr() for name in held} == held
    assert all(model.get_submodule(name).stored.weight.dtype == torch.bfloat16 for name in held)


def test_tied_layers_share_one_stored_weight(bfloat16_folders):
    model = load_model(resolve_model(str(bfloat16_folders["llama-tied"])), CPU, torch.float32).model
    assert model.lm_head.stored is model.model.embed_tokens.stored


@each_architecture
def test_the_layers_that_were_replaced_are_let_go(architecture, bfloat16_folders):
    model = load_pretrained(resolve_model(str(bfloat16_folders[architecture])))
    replaced = [weakref.ref(model.get_submodule(layer.name)) for layer in layers_of(model)]
    install_packed_layers(model, {}, torch.float32)
    gc.collect()
    assert replaced and all(layer() is None for layer in replaced)


@each_architecture
def test_only_what_belongs_to_no_layer_is_still_a_parameter(architecture, bfloat16_folders):
    model = load_model(resolve_model(str(bfloat16_folders[architecture])), CPU, torch.float32).model
    held = {name for name, module in model.named_modules() if isinstance(module, Unpacking)}
    assert held and not {f"{name}.weight" for name in held} & dict(model.named_parameters()).keys()
    assert all(
        not parameter.requires_grad and parameter.dtype == torch.float32
        for parameter in model.parameters()
    )
