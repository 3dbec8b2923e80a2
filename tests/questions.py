"""Steps and layers that live questions are asked about."""

STEPS = [
    {"technique": "round-to-nearest"},
    {"technique": "round-to-nearest", "bits": 3, "scheme": "asymmetric", "granularity": "channel"},
    {"technique": "bitsandbytes", "double_quantization": True},
    {"technique": "bitsandbytes", "format": "int8"},
]
LAYERS = {
    "llama": "model.layers.1.mlp.down_proj",
    "gpt2": "transformer.h.0.mlp.c_fc",
    "resnet": "resnet.embedder.embedder.convolution",
}
