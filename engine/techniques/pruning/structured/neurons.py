"""Neurons of feed-forward layers: each is a row of every layer that computes it and a column of
the layer that reads it.
"""

from engine.models.experts import experts_in
from engine.models.layers import Layer
from engine.step.pruning_plan import Subject
from engine.techniques.pruning.structured.coupled_structures import Family, Part, single
from engine.techniques.pruning.structured.dependencies import Neurons, coupled_structures

# layers of an expert, whatever the architecture
EXPERT = ((("gate_proj", "up_proj"), "down_proj"), (("up_proj",), "down_proj"))


def neurons(subject: Subject) -> list[Family]:
    """Neurons of every feed-forward part, in order where a block has several. Routed experts are
    named by their own layers, since
    a traced text reaches few experts.
    """
    experts = experts_in(subject.original.model)
    found, counts = [], {}
    for each in coupled_structures(subject):
        if isinstance(each, Neurons) and not any(
            each.reader.startswith(f"{path}.") for path in experts
        ):
            family = family_of(each, counts.get(each.block, 0))
            counts[each.block] = counts.get(each.block, 0) + family.size
            found.append(family)
    layers = {layer.name: layer for layer in subject.original.layers}
    return found + [family for path in experts if (family := of_expert(path, layers))]


def family_of(found: Neurons, first: int) -> Family:
    made = (Part(source.layer, "outputs", source.rows) for source in found.sources)
    count = len(found.sources[0].rows)
    return Family(
        found.block, "neuron", (*made, Part(found.reader, "inputs", single(count))), first
    )


def of_expert(path: str, layers: dict[str, Layer]) -> Family | None:
    """None where an expert has other layers, such as one for gate and up together."""
    for makers, reader in EXPERT:
        made, read = (
            [layers.get(f"{path}.{name}") for name in makers],
            layers.get(f"{path}.{reader}"),
        )
        if read and all(made):
            count = read.shape[1]
            return Family(
                path,
                "neuron",
                (
                    *(Part(each.name, "outputs", single(count)) for each in made),
                    Part(read.name, "inputs", single(count)),
                ),
            )
    return None
