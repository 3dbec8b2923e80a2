"""Share of the parameters outside layers, before and after experts are unfused, for every causal
language model with experts.

Run with ``python -m tests.benchmarks.experts``. Each architecture in the installed transformers is
built with random weights in a tiny configuration; failures are listed with the reason. A row also
gives the difference of the logits.
"""

import inspect
import re
import warnings

import torch
import transformers
from tests.engine.models.test_experts import IDS, outside_layers
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from engine.models.unfused_experts import unfuse_experts

LARGEST = 4_000_000  # parameters
SIZES = {
    "vocab_size": 288,
    "hidden_size": 48,
    "intermediate_size": 64,
    "moe_intermediate_size": 20,
    "shared_expert_intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "max_position_embeddings": 128,
    "num_local_experts": 4,
    "num_experts": 4,
    "n_routed_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_k": 2,
    "moe_topk": 2,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 0,
    "decoder_sparse_step": 1,
    "interleave_moe_layer_step": 1,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "use_cache": False,
}
MLA = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 12,
    "num_key_value_heads": 4,
}
FURTHER = {
    "jetmoe": {"kv_channels": 12},
    "minimax": {"layer_types": ["full_attention"] * 2},
    "lfm2_moe": {"layer_types": ["full_attention"] * 2, "num_dense_layers": 0},
    "gpt_oss": {"layer_types": ["sliding_attention", "full_attention"]},
    "zaya": {"num_experts_per_tok": 1},
    "jamba": {
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 1,
        "expert_layer_offset": 0,
        "use_mamba_kernels": False,
    },
}


def main() -> None:
    transformers.logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    for family in sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        try:
            row = row_of(family)
        except Exception as error:  # whatever a configuration of these sizes leads to
            row = f"not built: {type(error).__name__}: {' '.join(str(error).split())[:90]}"
        if row:
            print(f"{family:24s}{row}", flush=True)


def row_of(family: str) -> str:
    """Row of an architecture; empty if it has no experts."""
    config = config_of(family)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    if not re.search("class .*Experts", inspect.getsource(inspect.getmodule(type(model)))):
        return ""
    if (count := sum(value.numel() for value in model.parameters())) > LARGEST:
        return f"not built: {count:,} parameters, since it takes its sizes from other fields"
    model = random(config)
    model.set_experts_implementation("eager")
    before, due = outside_layers(model), logits_of(model)
    unfuse_experts(model)
    return (
        f"{before:6.1%} -> {outside_layers(model):6.1%}   largest difference "
        f"{(logits_of(model) - due).abs().max():.1g}"
    )


def config_of(family: str) -> PreTrainedConfig:
    kind = CONFIG_MAPPING[family]
    known = {*getattr(kind, "__dataclass_fields__", {}), *getattr(kind, "attribute_map", {})}
    sizes = SIZES | (MLA if "kv_lora_rank" in known else {})
    fields = {
        name: value
        for name, value in sizes.items()
        if name in known and not (name == "head_dim" and "kv_lora_rank" in known)
    }
    return kind(**fields | FURTHER.get(family, {}))


def random(config: PreTrainedConfig) -> PreTrainedModel:
    torch.manual_seed(0)
    model = (
        AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval().requires_grad_(False)
    )
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.normal_(std=0.05)
    return model


@torch.no_grad()
def logits_of(model: PreTrainedModel) -> torch.Tensor:
    return model(input_ids=IDS).logits


if __name__ == "__main__":
    main()
