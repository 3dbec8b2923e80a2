"""Neurons of feed-forward layers: each is a row of every layer that computes it and a column of the
layer that reads it.
"""

from engine.models.layers import Layer
from engine.models.routed_layers import expert_paths
from engine.step.pruning_plan import TechniqueInput
from engine.techniques.pruning.structured.coupled_structures import (
    StructureGroup,
    StructureSlice,
    single_positions,
)
from engine.techniques.pruning.structured.dependencies import Neurons, coupled_structures

# layers of an expert, whatever the architecture
EXPERT = ((("gate_proj", "up_proj"), "down_proj"), (("up_proj",), "down_proj"))


def neuron_groups(technique_input: TechniqueInput) -> list[StructureGroup]:
    """Neurons of every feed-forward part, in order if a block has several. Routed experts are found
    by the names of their layers, because a traced text reaches few experts.
    """
    experts = expert_paths(technique_input.original.model)
    found, counts = [], {}
    for neurons in coupled_structures(technique_input):
        if isinstance(neurons, Neurons) and not any(
            neurons.reader.startswith(f"{path}.") for path in experts
        ):
            group = neuron_group(neurons, counts.get(neurons.block, 0))
            counts[neurons.block] = counts.get(neurons.block, 0) + group.size
            found.append(group)
    layers = {layer.name: layer for layer in technique_input.original.layers}
    return found + [group for path in experts if (group := expert_neuron_group(path, layers))]


def neuron_group(found: Neurons, first: int) -> StructureGroup:
    slices = (StructureSlice(source.layer, "outputs", source.rows) for source in found.sources)
    count = len(found.sources[0].rows)
    return StructureGroup(
        found.block,
        "neuron",
        (*slices, StructureSlice(found.reader, "inputs", single_positions(count))),
        first,
    )


def expert_neuron_group(path: str, layers: dict[str, Layer]) -> StructureGroup | None:
    """Neurons of an expert; None if it has other layers, such as one for gate and up together."""
    for makers, reader in EXPERT:
        makers_found, read = (
            [layers.get(f"{path}.{name}") for name in makers],
            layers.get(f"{path}.{reader}"),
        )
        if read and all(makers_found):
            count = read.shape[1]
            return StructureGroup(
                path,
                "neuron",
                (
                    *(
                        StructureSlice(expert.name, "outputs", single_positions(count))
                        for expert in makers_found
                    ),
                    StructureSlice(read.name, "inputs", single_positions(count)),
                ),
            )
    return None
