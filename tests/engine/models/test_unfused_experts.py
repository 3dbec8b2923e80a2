"""Experts become layers."""

import torch
from torch import nn

from engine.models.layers import layers_of
from engine.models.loaded_model import load_model
from engine.models.loading import meta_model, resolve_model
from engine.models.routed_layers import expert_paths
from engine.models.unfused_experts import scaled_down, unfuse_experts
from tests.cases import for_each
from tests.experts import EXPERTS, MODELS, build_model, save_model

CPU = torch.device("cpu")
each_model = for_each("name", MODELS)
IDS = torch.randint(4, 200, (2, 24), generator=torch.Generator().manual_seed(0))


def logits_of(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def outside_layers(model: nn.Module) -> float:
    """Share of the parameters in matrices outside layers."""
    weights = {f"{layer.name}.weight" for layer in layers_of(model)}
    bare = sum(
        value.numel()
        for name, value in model.named_parameters()
        if value.ndim > 1 and name not in weights
    )
    return bare / sum(value.numel() for value in model.parameters())


@each_model
def test_unfused_experts_compute_the_same_outputs(name):
    model = build_model(name)
    model.set_experts_implementation("eager")
    due, before = logits_of(model), outside_layers(model)
    after = outside_layers(unfuse_experts(model))
    torch.testing.assert_close(logits_of(model), due, rtol=1e-5, atol=1e-5)
    assert before > 0.08 and after < 0.02


@each_model
def test_every_parameter_of_the_experts_is_kept_once(name):
    """The number of parameters is unchanged, and experts share the memory of the original
    tensors.
    """
    model = build_model(name)
    count, memory = sum(value.numel() for value in model.parameters()), memory_of(model)
    unfuse_experts(model)
    assert sum(value.numel() for value in model.parameters()) == count
    assert memory_of(model) == memory


def memory_of(model: nn.Module) -> int:
    return sum(
        {
            value.untyped_storage().data_ptr(): value.untyped_storage().nbytes()
            for value in model.parameters()
        }.values()
    )


@each_model
def test_a_model_without_values_has_the_layers_of_the_loaded_one(name, tmp_path):
    folder = resolve_model(str(save_model(name, tmp_path, torch.bfloat16)))
    assert layers_of(meta_model(folder)) == load_model(folder, CPU, torch.float32).layers


def test_layers_are_named_by_expert_and_belong_to_their_block(tmp_path):
    layers = {
        layer.name: layer
        for layer in load_model(
            resolve_model(str(save_model("qwen3-moe", tmp_path))), CPU, torch.float32
        ).layers
    }
    layer = layers["model.layers.1.mlp.experts.3.down_proj"]
    assert layer.block == "model.layers.1" and layer.shape == (48, 20)
    assert len(expert_paths(built_unfused("qwen3-moe"))) == 2 * EXPERTS


def built_unfused(name: str) -> nn.Module:
    return unfuse_experts(build_model(name))


def test_experts_with_an_unknown_formula_are_not_replaced():
    """Equal parameters with another formula: no layout gives the outputs, so nothing is
    replaced.
    """
    model = build_model("mixtral")
    experts = model.model.layers[0].mlp.experts

    class Doubled(type(experts)):
        def forward(self, hidden_states, top_k_index, top_k_weights):
            return 2 * super().forward(hidden_states, top_k_index, top_k_weights)

    experts.__class__ = Doubled
    model.set_experts_implementation("eager")
    due = logits_of(model)
    unfuse_experts(model)
    assert isinstance(model.model.layers[0].mlp.experts, Doubled) and not isinstance(
        model.model.layers[1].mlp.experts, type(experts)
    )
    assert torch.equal(logits_of(model), due)


def test_layouts_are_tested_on_a_small_copy():
    """DeepSeek-V3's experts without values: 5.6 GB in bfloat16."""
    from transformers import DeepseekV3Config
    from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3Experts

    with torch.device("meta"):
        experts = DeepseekV3Experts(DeepseekV3Config())
    small = scaled_down(experts)
    assert sum(value.numel() for value in small.parameters()) < 10_000
    assert small.num_experts == small.gate_up_proj.shape[0] < experts.num_experts == 256
