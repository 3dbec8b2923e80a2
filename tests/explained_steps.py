"""Steps that are explained on one layer of each architecture."""

from engine.interactive.layer_preview import cached_preview
from tests.answers import recipe_with
from tests.cases import for_each
from tests.tiny import ARCHITECTURES

LAYERS = {
    "llama": "model.layers.1.mlp.down_proj",
    "llama-tied": "model.layers.0.self_attn.k_proj",
    "qwen2": "model.layers.0.self_attn.v_proj",
    "gpt2": "transformer.h.0.mlp.c_fc",
    "opt": "model.decoder.layers.0.fc2",
    "bert": "bert.encoder.layer.0.output.dense",
    "resnet": "resnet.encoder.stages.1.layers.0.layer.1.convolution",
}
STEPS = {
    "rounding": {"technique": "round-to-nearest"},
    "rounding-tensor": {
        "technique": "round-to-nearest",
        "bits": 3,
        "granularity": "tensor",
        "scheme": "asymmetric",
    },
    "nf4": {"technique": "bitsandbytes"},
    "fp4-double": {"technique": "bitsandbytes", "format": "fp4", "double_quantization": True},
    "int8": {"technique": "bitsandbytes", "format": "int8"},
    "gptq": {"technique": "gptq"},
    "gptq-static": {"technique": "gptq", "bits": 3, "activation_order": True, "group_size": 48},
    "gptq-ordered": {
        "technique": "gptq",
        "activation_order": True,
        "static_groups": False,
        "scheme": "asymmetric",
        "group_size": 48,
    },
    "awq": {"technique": "awq", "bits": 3},
    "static": {"technique": "activations"},
    "smoothquant": {"technique": "smoothquant"},
    "llm-int8": {"technique": "llm-int8", "threshold": 2},
    "mixed-precision": {"technique": "mixed-precision"},
    "awq-salience": {"technique": "awq-salience", "group_size": 32},
    "magnitude": {"technique": "magnitude"},
    "wanda": {"technique": "wanda"},
    "sparsegpt": {"technique": "sparsegpt"},
    "taylor": {"technique": "taylor", "storage": "csr"},
    "svd": {"technique": "svd", "kept": 0.5},
    "svd-randomized": {"technique": "svd", "whitening": "none", "solver": "randomized"},
    "low-rank-correction": {"technique": "low-rank-correction", "rank": 2},
}
any_step = for_each("step", STEPS)
each_architecture = for_each("architecture", ARCHITECTURES)


def look_at_hand(model, layer, step, measured):
    return cached_preview(recipe_with(model, [step], measured), layer)
