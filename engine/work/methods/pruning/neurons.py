"""Neurons of feed-forward layers: each is a row of what makes it and a column of what reads it."""

from engine.work.calibration.stream import lists_of_blocks
from engine.work.layers import Layer
from engine.work.methods.pruning.families import Family, Part, inside, single
from engine.work.rebuilt import Subject

# makers and reader, as transformers names them inside a block: gated (Llama, Qwen, Mistral, Gemma), GPT-2, OPT, ViT, DistilBERT, BERT
NAMES = (
    (("mlp.gate_proj", "mlp.up_proj"), "mlp.down_proj"),
    (("mlp.c_fc",), "mlp.c_proj"),
    (("fc1",), "fc2"),
    (("mlp.fc1",), "mlp.fc2"),
    (("ffn.lin1",), "ffn.lin2"),
    (("intermediate.dense",), "output.dense"),
)


def neurons(subject: Subject) -> list[Family]:
    """Of every block that has a feed-forward part of a known form."""
    layers = {layer.name: layer for layer in subject.original.layers}
    blocks = [block for blocks in lists_of_blocks(subject.original.model) for block in blocks]
    return [family for block in blocks if (family := neurons_of(block, layers))]


def neurons_of(block: str, layers: dict[str, Layer]) -> Family | None:
    for makers, reader in NAMES:
        found = inside(block, layers, *makers, reader)
        if found and len({made.shape[0] for made in found[:-1]} | {found[-1].shape[1]}) == 1:
            count = found[-1].shape[1]
            made = tuple(Part(layer.name, "outputs", single(count)) for layer in found[:-1])
            return Family(block, "neuron", (*made, Part(found[-1].name, "inputs", single(count))))
    return None
