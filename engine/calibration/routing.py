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

from engine.calibration.activation_stats import Seen
from engine.models.experts import Routed, routed_layers

# tokens that the mean and the range of a channel need; a Gram matrix needs as many as there are
# channels
ENOUGH = 32


@dataclass
class Strength:
    """Sums and extremes of input values, which give their mean magnitude, mean square and range."""

    count: int = 0
    absolute: float = 0.0
    square: float = 0.0
    low: float = torch.inf
    high: float = -torch.inf

    @classmethod
    def of(cls, seen: Seen) -> "Strength":
        largest = seen.abs_max.max().item()
        lows, highs = zip(*(seen.extremes or [(-largest, largest)]), strict=True)
        return cls(
            seen.count * seen.width,
            seen.abs_sum.sum().item(),
            seen.square_sum.sum().item(),
            min(lows),
            max(highs),
        )

    def with_more(self, other: "Strength") -> "Strength":
        sums = (
            self.count + other.count,
            self.absolute + other.absolute,
            self.square + other.square,
        )
        return Strength(*sums, min(self.low, other.low), max(self.high, other.high))


UNIT = Strength(1, 1.0, 1.0, -1.0, 1.0)  # where none of a block's experts got a token


@dataclass
class Routing:
    """Input statistics of experts, and replacements for missing tokens."""

    layers: dict[str, Routed]  # the layers of experts
    # (experts, projection) -> of all experts' inputs so far
    strengths: dict[tuple[str, str], Strength] = field(default_factory=dict)

    @classmethod
    def of(cls, model: nn.Module, names: Iterable[str]) -> "Routing":
        return cls(routed_layers(model, names))

    @property
    def paths(self) -> list[str]:
        """Paths of the modules that route tokens."""
        return list(dict.fromkeys(each.path for each in self.layers.values()))

    def complete(self, name: str, seen: Seen) -> None:
        """Note how strong the inputs of a layer are, and add to those of an expert what it lacks. A
        layer that was only called without any token
        lacks them all.
        """
        if not seen.count:
            add_uncorrelated(seen, UNIT, f"no calibration token was routed to it; {STAND_IN}")
        if name not in self.layers or seen.missing:
            return
        own = Strength.of(seen)
        self.note({name: seen}, self.layers)
        if seen.count < enough(seen):
            add_uncorrelated(
                seen,
                own,
                (
                    f"{seen.count:,} calibration tokens were routed to it, fewer than "
                    f"{enough(seen):,}; {STAND_IN}"
                ),
            )

    def siblings_to_look_at(self, model: nn.Module, known: Iterable[str]) -> dict[str, Routed]:
        """Layers of other experts, needed if neither a layer nor its siblings received tokens."""
        places = {
            self.layers[name].place for name in self.layers.keys() - set(known)
        } - self.strengths.keys()
        every = routed_layers(model, [name for name, _ in model.named_modules()]) if places else {}
        return {name: routed for name, routed in every.items() if routed.place in places}

    def note(self, seen: dict[str, Seen], layers: dict[str, Routed]) -> None:
        """Record the input strength of these layers."""
        for name, each in seen.items():
            place = layers[name].place
            self.strengths[place] = self.strengths.get(place, Strength()).with_more(
                Strength.of(each)
            )

    def unreached(
        self,
        known: Iterable[str],
        width_of: Callable[[str], int],
        wants_gram: bool,
        device: torch.device,
    ) -> dict[str, Seen]:
        """Replacement statistics for experts' layers without any token. Layers with a common input
        share one.
        """
        found: dict[str, Seen] = {}
        shared: dict[tuple[Any, ...], Seen] = {}
        known = set(known)
        for name, routed in self.layers.items():
            if name in known:
                continue
            key = (
                routed.path,
                routed.expert,
                "down_proj" if routed.projection == "down_proj" else "",
            )
            if key not in shared:
                shared[key] = Seen(width_of(name), device, wants_gram)
                strength = self.strengths.get(routed.place, UNIT)
                add_uncorrelated(
                    shared[key], strength, f"no calibration token was routed to it; {STAND_IN}"
                )
            found[name] = shared[key]
        return found


STAND_IN = "uncorrelated inputs stand in for the missing ones"


def enough(seen: Seen) -> int:
    """Number of tokens from which an expert is calibrated on its own tokens alone."""
    return seen.width if seen.wants_gram else min(seen.width, ENOUGH)


def add_uncorrelated(seen: Seen, strength: Strength, note: str) -> None:
    """Add the missing number of input vectors, uncorrelated and of equal strength in every
    channel.
    """
    missing = enough(seen) - seen.count
    square, absolute = strength.square / strength.count, strength.absolute / strength.count
    if not seen.vectors:
        vectors = (
            torch.randn(
                min(missing, ENOUGH), seen.width, generator=torch.Generator().manual_seed(0)
            )
            * square**0.5
        )
        seen.vectors.append(vectors.clamp(strength.low, strength.high).to(seen.device))
    seen.count += missing
    seen.missing = missing
    seen.abs_sum += missing * absolute
    seen.square_sum += missing * square
    seen.abs_max.clamp_min_(square**0.5)
    if seen.wants_gram:
        seen.gram.diagonal().add_(missing * square)
    else:
        seen.lows.append(torch.full_like(seen.abs_max, strength.low))
        seen.highs.append(torch.full_like(seen.abs_max, strength.high))
    seen.warnings.append(note)
