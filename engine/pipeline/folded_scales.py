"""Scales that were moved between layers, and layers in the original's terms in spite of them."""

from dataclasses import dataclass, field

import torch

from engine.tensors.weights import StoredWeight


@dataclass
class FoldedScales:
    """Scales by layer, while a model is compressed block by block."""

    inputs: dict[str, torch.Tensor] = field(default_factory=dict)  # factors of columns, (in_,)
    outputs: dict[str, torch.Tensor] = field(default_factory=dict)  # divisors of rows, (out,)
    routers: dict[str, StoredWeight] = field(
        default_factory=dict
    )  # uncompressed layers with new columns

    def moves_scales(self, name: str) -> bool:
        return name in self.inputs or name in self.outputs

    def without_scales(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        """A stored weight in the original's terms."""
        if name in self.inputs:
            weight = weight / self.inputs[name]
        return weight * self.outputs[name][:, None] if name in self.outputs else weight

    def layer_inputs(
        self, name: str, stored: StoredWeight, inputs: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A sample of the layer's inputs, and what the compressed layer makes of them."""
        inputs = inputs.float()
        scales = self.inputs.get(name)
        return inputs, stored.quantized_inputs(
            inputs
        ) if scales is None else stored.quantized_inputs(inputs / scales) * scales
