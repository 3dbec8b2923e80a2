"""Tiny causal language models with experts, one for every storage and dispatch in transformers."""

from collections.abc import Callable
from pathlib import Path

import torch
from transformers import (
    DbrxConfig,
    DbrxForCausalLM,
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    Glm4MoeConfig,
    Glm4MoeForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    JetMoeConfig,
    JetMoeForCausalLM,
    Llama4ForCausalLM,
    Llama4TextConfig,
    MixtralConfig,
    MixtralForCausalLM,
    NemotronHConfig,
    NemotronHForCausalLM,
    PhimoeConfig,
    PhimoeForCausalLM,
    PreTrainedModel,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from tests.tiny import LLAMA, TOKENS, tokenizer

EXPERTS = 6
MOE = {
    **LLAMA,
    "intermediate_size": 36,
    "moe_intermediate_size": 20,
    "num_experts_per_tok": 2,
    "tie_word_embeddings": False,
}
MLA = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 12,
    "num_key_value_heads": 4,
}


def mixtral() -> PreTrainedModel:
    """One 3-D parameter for gate and up, one for down; the router is a bare parameter."""
    return MixtralForCausalLM(MixtralConfig(**MOE, num_local_experts=EXPERTS))


def qwen2_moe() -> PreTrainedModel:
    """A Qwen2-MoE with a gated shared expert."""
    return Qwen2MoeForCausalLM(
        Qwen2MoeConfig(
            **MOE, num_experts=EXPERTS, shared_expert_intermediate_size=28, decoder_sparse_step=1
        )
    )


def qwen3_moe() -> PreTrainedModel:
    return Qwen3MoeForCausalLM(
        Qwen3MoeConfig(**MOE, head_dim=12, num_experts=EXPERTS, decoder_sparse_step=1)
    )


def deepseek_v3() -> PreTrainedModel:
    """A dense block before one with experts, and a shared expert."""
    groups = {
        "n_routed_experts": EXPERTS,
        "n_shared_experts": 1,
        "n_group": 1,
        "topk_group": 1,
        "first_k_dense_replace": 1,
    }
    return DeepseekV3ForCausalLM(DeepseekV3Config(**MOE | MLA | groups))


def glm4_moe() -> PreTrainedModel:
    groups = {
        "n_routed_experts": EXPERTS,
        "n_shared_experts": 1,
        "n_group": 1,
        "topk_group": 1,
        "first_k_dense_replace": 0,
    }
    return Glm4MoeForCausalLM(Glm4MoeConfig(**MOE | groups, head_dim=12))


def gpt_oss() -> PreTrainedModel:
    """Transposed weights, interleaved gate and up, biases, a clamped activation."""
    return GptOssForCausalLM(
        GptOssConfig(
            **MOE,
            head_dim=12,
            num_local_experts=EXPERTS,
            layer_types=["sliding_attention", "full_attention"],
        )
    )


def llama4() -> PreTrainedModel:
    """Transposed weights; every expert gets all tokens, most of them as zeros. The router is a
    linear layer of a custom class.
    """
    experts = {
        "num_local_experts": EXPERTS,
        "interleave_moe_layer_step": 1,
        "intermediate_size_mlp": 36,
        "num_experts_per_tok": 1,
    }
    return Llama4ForCausalLM(Llama4TextConfig(**MOE | experts, head_dim=12))


def jetmoe() -> PreTrainedModel:
    """Tokens sorted by expert; attention has experts too. Routers are linear layers."""
    return JetMoeForCausalLM(
        JetMoeConfig(**MOE | {"num_key_value_heads": 2}, kv_channels=12, num_local_experts=EXPERTS)
    )


def phimoe() -> PreTrainedModel:
    return PhimoeForCausalLM(PhimoeConfig(**MOE, num_local_experts=EXPERTS))


def nemotron_h() -> PreTrainedModel:
    """Experts without a gate."""
    shape = {
        "layers_block_type": ["attention", "moe"],
        "head_dim": 12,
        "n_routed_experts": EXPERTS,
        "n_group": 1,
        "topk_group": 1,
    }
    small = {
        "moe_shared_expert_intermediate_size": 24,
        "mamba_num_heads": 4,
        "mamba_head_dim": 24,
        "n_groups": 2,
        "ssm_state_size": 8,
    }
    return NemotronHForCausalLM(NemotronHConfig(**{**MOE, **shape, **small}))


def dbrx() -> PreTrainedModel:
    """2-D parameters with the experts' rows stacked."""
    inner = {"ffn_hidden_size": 20, "moe_num_experts": EXPERTS, "moe_top_k": 2, "hidden_size": 48}
    rope = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}
    parts = {
        "ffn_config": inner,
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0},
    }
    shape = {"d_model": 48, "n_heads": 4, "n_layers": 2, "max_seq_len": 128}
    return DbrxForCausalLM(DbrxConfig(**TOKENS, **shape, **parts, **rope))


MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "mixtral": mixtral,
    "qwen2-moe": qwen2_moe,
    "qwen3-moe": qwen3_moe,
    "deepseek-v3": deepseek_v3,
    "glm4-moe": glm4_moe,
    "gpt-oss": gpt_oss,
    "llama4": llama4,
    "jetmoe": jetmoe,
    "phimoe": phimoe,
    "nemotron-h": nemotron_h,
    "dbrx": dbrx,
}


def build_model(name: str, dtype: torch.dtype = torch.float32, seed: int = 0) -> PreTrainedModel:
    """Model with random weights everywhere, also where an architecture starts with zeros or
    uninitialized memory.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MODELS[name]().requires_grad_(False)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.1)
    return model.to(dtype).eval()


def save_model(name: str, folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    build_model(name, dtype).save_pretrained(folder)
    tokenizer("mixtral").save_pretrained(folder)
    return folder


def saved_of(experts: int, folder: Path, blocks: int = 2, **sizes: int) -> Path:
    """A Qwen3-MoE of so many experts in each block."""
    fields = (
        MOE
        | {
            "head_dim": 12,
            "num_experts": experts,
            "decoder_sparse_step": 1,
            "num_hidden_layers": blocks,
        }
        | sizes
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        Qwen3MoeForCausalLM(Qwen3MoeConfig(**fields)).save_pretrained(folder)
    tokenizer("mixtral").save_pretrained(folder)
    return folder


def without_tokens(model: PreTrainedModel) -> int:
    """Make an expert of a Mixtral receive no token, and return its number: two of the other four
    always exceed its logit of zero.
    """
    draw = torch.Generator().manual_seed(1)
    for block in model.model.layers:
        one, other, further = torch.randn(3, 48, generator=draw)
        block.mlp.gate.weight.copy_(
            torch.stack([one, -one, torch.zeros(48), other, -other, further])
        )
    return 2


def save_model_without_tokens(folder: Path) -> Path:
    model = build_model("mixtral")
    without_tokens(model)
    model.save_pretrained(folder)
    tokenizer("mixtral").save_pretrained(folder)
    return folder
