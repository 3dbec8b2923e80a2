"""Calibration statistics of experts that receive few tokens.

An expert's layers are calibrated on the tokens routed to it. If these are fewer than a technique
needs, the missing ones are replaced by uncorrelated inputs of equal strength in every channel: as
strong as the expert's own tokens or, without any, as those of the block's other experts. Without
tokens, methods therefore reduce to their data-free form: GPTQ rounds to nearest, SparseGPT and
Wanda prune by magnitude, and whitened SVD is plain SVD.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from engine.calibration.activation_stats import InputStats
from engine.models.routed_layers import RoutedLayer, routed_layers

# tokens that the mean and the range of a channel need; a Gram matrix needs as many as it has rows
# channels
MIN_TOKENS = 32


@dataclass
class InputMagnitude:
    """Sums and extremes of input values, which give their mean magnitude, mean square and range."""

    count: int = 0
    absolute: float = 0.0
    square: float = 0.0
    low: float = torch.inf
    high: float = -torch.inf

    @classmethod
    def from_stats(cls, stats: InputStats) -> "InputMagnitude":
        largest = stats.abs_max.max().item()
        lows, highs = zip(*(stats.extremes or [(-largest, largest)]), strict=True)
        return cls(
            stats.count * stats.width,
            stats.abs_sum.sum().item(),
            stats.square_sum.sum().item(),
            min(lows),
            max(highs),
        )

    def merged_with(self, other: "InputMagnitude") -> "InputMagnitude":
        sums = (
            self.count + other.count,
            self.absolute + other.absolute,
            self.square + other.square,
        )
        return InputMagnitude(*sums, min(self.low, other.low), max(self.high, other.high))


UNIT_MAGNITUDE = InputMagnitude(
    1, 1.0, 1.0, -1.0, 1.0
)  # where none of a block's experts got a token


@dataclass
class ExpertRouting:
    """Input statistics of experts, and replacements for missing tokens."""

    layers: dict[str, RoutedLayer]  # layers of experts
    # (experts, projection) -> magnitude of all experts' inputs so far
    magnitudes: dict[tuple[str, str], InputMagnitude] = field(default_factory=dict)

    @classmethod
    def for_layers(cls, model: nn.Module, names: Iterable[str]) -> "ExpertRouting":
        return cls(routed_layers(model, names))

    @property
    def paths(self) -> list[str]:
        """Paths of the modules that route tokens."""
        return list(dict.fromkeys(layer.path for layer in self.layers.values()))

    def fill_missing_tokens(self, name: str, stats: InputStats) -> None:
        """Record the magnitude of a layer's inputs, and add uncorrelated inputs to the statistics
        of an expert that too few tokens reached.
        """
        if not stats.count:
            add_uncorrelated_inputs(
                stats, UNIT_MAGNITUDE, f"no calibration token was routed to it; {STAND_IN}"
            )
        if name not in self.layers or stats.missing:
            return
        magnitude = InputMagnitude.from_stats(stats)
        self.note({name: stats}, self.layers)
        if stats.count < required_tokens(stats):
            add_uncorrelated_inputs(
                stats,
                magnitude,
                (
                    f"{stats.count:,} calibration tokens were routed to it, fewer than "
                    f"{required_tokens(stats):,}; {STAND_IN}"
                ),
            )

    def siblings_to_observe(
        self, model: nn.Module, observed: Iterable[str]
    ) -> dict[str, RoutedLayer]:
        """Layers of other experts, needed if neither a layer nor its siblings received tokens."""
        stacks = {
            self.layers[name].stack for name in self.layers.keys() - set(observed)
        } - self.magnitudes.keys()
        every = routed_layers(model, [name for name, _ in model.named_modules()]) if stacks else {}
        return {name: routed for name, routed in every.items() if routed.stack in stacks}

    def note(self, stats_by_layer: dict[str, InputStats], layers: dict[str, RoutedLayer]) -> None:
        """Record the input strength of these layers."""
        for name, stats in stats_by_layer.items():
            stack = layers[name].stack
            self.magnitudes[stack] = self.magnitudes.get(stack, InputMagnitude()).merged_with(
                InputMagnitude.from_stats(stats)
            )

    def unreached_stats(
        self,
        reached: Iterable[str],
        width_of: Callable[[str], int],
        wants_gram: bool,
        device: torch.device,
    ) -> dict[str, InputStats]:
        """Replacement statistics for experts' layers without any token. Layers with a common input
        share one.
        """
        found: dict[str, InputStats] = {}
        shared: dict[tuple[Any, ...], InputStats] = {}
        reached = set(reached)
        for name, routed in self.layers.items():
            if name in reached:
                continue
            key = (
                routed.path,
                routed.expert,
                "down_proj" if routed.projection == "down_proj" else "",
            )
            if key not in shared:
                shared[key] = InputStats(width_of(name), device, wants_gram)
                strength = self.magnitudes.get(routed.stack, UNIT_MAGNITUDE)
                add_uncorrelated_inputs(
                    shared[key], strength, f"no calibration token was routed to it; {STAND_IN}"
                )
            found[name] = shared[key]
        return found


STAND_IN = "uncorrelated inputs stand in for the missing ones"


def required_tokens(stats: InputStats) -> int:
    """Number of tokens from which an expert is calibrated on its own tokens alone."""
    return stats.width if stats.wants_gram else min(stats.width, MIN_TOKENS)


def add_uncorrelated_inputs(stats: InputStats, magnitude: InputMagnitude, note: str) -> None:
    """Add the missing number of input vectors, uncorrelated and of equal strength in every
    channel.
    """
    missing = required_tokens(stats) - stats.count
    square, absolute = magnitude.square / magnitude.count, magnitude.absolute / magnitude.count
    if not stats.vectors:
        vectors = (
            torch.randn(
                min(missing, MIN_TOKENS), stats.width, generator=torch.Generator().manual_seed(0)
            )
            * square**0.5
        )
        stats.vectors.append(vectors.clamp(magnitude.low, magnitude.high).to(stats.device))
    stats.count += missing
    stats.missing = missing
    stats.abs_sum += missing * absolute
    stats.square_sum += missing * square
    stats.abs_max.clamp_min_(square**0.5)
    if stats.wants_gram:
        stats.gram.diagonal().add_(missing * square)
    else:
        stats.lows.append(torch.full_like(stats.abs_max, magnitude.low))
        stats.highs.append(torch.full_like(stats.abs_max, magnitude.high))
    stats.warnings.append(note)
