"""Mixed precision: the number of bits of each layer (as in HAWQ-V2, arXiv:1911.03852, with measured
damage).
"""

from collections.abc import Callable
from fnmatch import fnmatchcase

import numpy as np

from engine.errors import PlainError, option_name
from engine.events import ProgressEvent
from engine.models.layers import Layer
from engine.results.schema.tables import NAN
from engine.step.layer_swap import LayerSwap
from engine.techniques.hooks import compress, plan, predicted_bytes
from engine.techniques.quantization.mixed_precision.bit_allocation import allocate
from engine.techniques.quantization.mixed_precision.config import MixedPrecision
from engine.techniques.quantization.mixed_precision.tables import SensitivityRow
from engine.techniques.quantization.rounding.config import RoundToNearest
from engine.tensors.weights import StoredWeight


@plan.register
def plan_mixed_precision(
    config: MixedPrecision, layers: list[Layer], layer_swap: LayerSwap | None = None
) -> dict[str, RoundToNearest]:
    """Without a trial (a forecast), damage is taken to be the mean squared rounding error, which
    falls by four with each bit.
    """
    if config.by == "name":
        return configs_by_name(config, layers)
    candidates = config.candidates()
    sizes = np.array(
        [
            [predicted_bytes(candidate, layer.matrix_shape) for candidate in candidates]
            for layer in layers
        ]
    )
    budget = budget_bytes(config, layers, sizes)
    if layer_swap is None:
        damage, other = (
            np.array(
                [
                    [layer.parameters / 4.0**candidate.bits for candidate in candidates]
                    for layer in layers
                ]
            ),
            None,
        )
    else:
        damage, other = SensitivityMeter(
            config, layers, layer_swap.with_first_examples(config.examples)
        ).measure()
    chosen = allocate(damage, sizes, budget, config.solver == "exact")
    if layer_swap is not None:
        layer_swap.tables.sensitivity.extend(
            sensitivity_rows(config, layers, sizes, damage, other, chosen)
        )
    return {layer.name: candidates[index] for layer, index in zip(layers, chosen, strict=True)}


def configs_by_name(config: MixedPrecision, layers: list[Layer]) -> dict[str, RoundToNearest]:
    """Rounding options of each layer by the name patterns of the config.

    Raises PlainError for a pattern that names no layer.
    """
    for pattern in config.bits_by_name:
        if not any(fnmatchcase(layer.name, pattern) for layer in layers):
            raise PlainError(
                f"No layer to be compressed fits the pattern {pattern[:80]!r}; theirs are "
                f"named like {layers[-1].name!r}."
            )
    bits = {
        layer.name: next(
            (b for p, b in config.bits_by_name.items() if fnmatchcase(layer.name, p)), config.bits
        )
        for layer in layers
    }
    return {name: config.rounding(layer_bits) for name, layer_bits in bits.items()}


def budget_bytes(config: MixedPrecision, layers: list[Layer], sizes: np.ndarray) -> int:
    """Budget in bytes. Raises PlainError if even the coarsest settings exceed it."""
    parameters = sum(layer.parameters for layer in layers)
    budget, smallest = int(config.budget * parameters / 8), int(sizes.min(axis=1).sum())
    if smallest > budget:
        raise PlainError(
            f"A budget of {config.budget:g} bits per weight cannot be met: the coarsest setting, "
            f"{min(config.choices)} bits in groups of {config.group_size}, "
            f"takes {smallest * 8 / parameters:.2f} with its scales; raise "
            f"{option_name(config, 'budget')}, allow fewer bits, or use larger groups."
        )
    return budget


class SensitivityMeter:
    """Change of the model's outputs by each layer's rounding, by two measures. The configured
    measure is computed for every candidate, the other one for the coarsest.
    """

    def __init__(self, config: MixedPrecision, layers: list[Layer], layer_swap: LayerSwap):
        self.config, self.layers, self.layer_swap, self.candidates = (
            config,
            layers,
            layer_swap,
            config.candidates(),
        )
        self.floor: dict[str, StoredWeight] = {}  # every layer at the coarsest
        self.done, self.total = 0, len(layers) * (len(self.candidates) + 1) + 1

    def measure(self) -> tuple[np.ndarray, np.ndarray]:
        """Sensitivities by the configured measure and by the other one: (layers, candidates) each,
        NaN if not measured.
        """
        for layer in self.layers:
            self.floor[layer.name] = compress(
                self.candidates[0], self.layer_swap.weight_of(layer.name)
            )
        everything = self.divergence(self.floor)
        alone, restored = (
            self.damage_alone,
            lambda layer: everything - self.divergence_without(layer),
        )
        if self.config.sensitivity == "quantize-one":
            return self.for_every_candidate(alone), self.for_coarsest_candidate(restored)
        return np.array(
            [self.damages_beside_all(layer) for layer in self.layers]
        ), self.for_coarsest_candidate(lambda layer: alone(layer, 0))

    def for_every_candidate(self, damage_of_candidate: Callable[[Layer, int], float]) -> np.ndarray:
        return np.array(
            [
                [damage_of_candidate(layer, index) for index in range(len(self.candidates))]
                for layer in self.layers
            ]
        )

    def for_coarsest_candidate(self, damage_of_layer: Callable[[Layer], float]) -> np.ndarray:
        damage = np.full((len(self.layers), len(self.candidates)), NAN)
        damage[:, 0] = [damage_of_layer(layer) for layer in self.layers]
        return damage

    def damage_alone(self, layer: Layer, index: int) -> float:
        """Quantize one: this layer rounded, all others unchanged."""
        return self.divergence({layer.name: self.rounded_layer(layer, index)})

    def divergence_without(self, layer: Layer) -> float:
        """Restore one: all layers except this one at the coarsest setting."""
        return self.divergence(
            {name: stored for name, stored in self.floor.items() if name != layer.name}
        )

    def damages_beside_all(self, layer: Layer) -> list[float]:
        """Sensitivity of this layer at each candidate while all others have the coarsest
        setting.
        """
        without = self.divergence_without(layer)
        return [
            self.divergence(self.floor | {layer.name: self.rounded_layer(layer, index)}) - without
            for index in range(len(self.candidates))
        ]

    def rounded_layer(self, layer: Layer, index: int) -> StoredWeight:
        return (
            self.floor[layer.name]
            if index == 0
            else compress(self.candidates[index], self.layer_swap.weight_of(layer.name))
        )

    def divergence(self, swapped: dict[str, StoredWeight]) -> float:
        self.layer_swap.context.progress(
            ProgressEvent("measuring-sensitivity", self.done, self.total)
        )
        self.done = min(self.done + 1, self.total)
        return self.layer_swap.divergence(swapped)


def sensitivity_rows(
    config: MixedPrecision,
    layers: list[Layer],
    sizes: np.ndarray,
    damage: np.ndarray,
    other: np.ndarray,
    chosen: list[int],
) -> list[SensitivityRow]:
    ones, others = (damage, other) if config.sensitivity == "quantize-one" else (other, damage)
    return [
        SensitivityRow(
            layer.name,
            candidate.bits,
            candidate.scheme,
            candidate.range,
            int(sizes[i, j]),
            float(ones[i, j]),
            float(others[i, j]),
            chosen[i] == j,
        )
        for i, layer in enumerate(layers)
        for j, candidate in enumerate(config.candidates())
    ]
