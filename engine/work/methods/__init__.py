"""How each technique is done, one method per file. Importing this package registers them all with the stages."""

from engine.work.methods.lowrank import correction, kernels, recovery, svd
from engine.work.methods.lowrank import portrait as _ranks  # noqa: F401, registers it
from engine.work.methods.pruning import blocks, gradual, lottery, sparsegpt, structured, unstructured
from engine.work.methods.pruning import portrait as _portrait  # noqa: F401, registers it
from engine.work.methods.quantization import (
    activations,
    awq,
    bitsandbytes,
    codebook,
    floats,
    gptq,
    hqq,
    llm_int8,
    mixed,
    round_to_nearest,
    salience,
    tables,
)
from engine.work.methods.stages import (
    beside,
    blueprint,
    compress,
    outlined,
    plan,
    portrait,
    predicted_bytes,
    rebuild,
    refuse_unfit,
    retrained,
    scales_for,
    survey,
    taught,
)
from engine.work.methods.training import adapters, aware, distill, precision

__all__ = [
    "activations", "adapters", "aware", "awq", "beside", "bitsandbytes", "blocks", "blueprint", "codebook", "compress", "correction", "distill",
    "floats", "gptq", "gradual", "hqq", "kernels", "llm_int8", "lottery", "mixed", "outlined", "plan", "portrait", "precision", "predicted_bytes",
    "rebuild", "recovery", "refuse_unfit",
    "retrained", "round_to_nearest", "salience", "scales_for", "sparsegpt", "structured", "survey", "svd", "tables", "taught",
    "unstructured",
]  # fmt: skip
