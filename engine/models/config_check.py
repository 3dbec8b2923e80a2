"""Checks of a config.json against a model's weight files, before transformers reads it.

A config.json of a few hundred bytes can describe a model of any size, and configurations create
lists with an entry per layer.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

from engine.errors import PlainError

LAYER_COUNT = re.compile(
    r"(layers?|blocks?|depths?|stages?|repeats|levels|cycles)$|^n(um)?_layers?", re.IGNORECASE
)
CLASS_COUNT = re.compile(r"^num_(labels|classes)$")
MAX_LISTED = 1_000_000  # for integers inside lists, which libraries use as repetition counts
FEW_LAYERS = 256  # always allowed, because a model with removed blocks keeps its configuration
MAX_PIXELS_PER_SIDE = 8192


@dataclass(frozen=True)
class TensorTotals:
    """Totals over the headers of a model's weight files."""

    tensors: int = 0  # experts in one stacked tensor count individually
    parameters: int = 0
    largest_dimension: int = 0

    def __add__(self, other: "TensorTotals") -> "TensorTotals":
        largest = max(self.largest_dimension, other.largest_dimension)
        return TensorTotals(
            self.tensors + other.tensors, self.parameters + other.parameters, largest
        )


def header_totals(entries: Iterable[Any]) -> TensorTotals:
    """Totals of one header. Shapes that do not match their bytes are skipped, because a hostile
    header may contain anything.
    """
    shapes = [entry["shape"] for entry in entries if has_shape(entry)]
    stacked = sum(shape[0] if len(shape) == 3 else 1 for shape in shapes)
    return TensorTotals(
        stacked, sum(map(prod, shapes)), max((max(shape, default=1) for shape in shapes), default=0)
    )


def has_shape(entry: Any) -> bool:
    """Return True if an entry's shape fits its bytes, with at least one bit per number."""
    match entry:
        case {"shape": list(shape), "data_offsets": [int(begin), int(end)]} if all(
            type(size) is int and size >= 0 for size in shape
        ):
            return max(prod(shape), *shape, 1) <= 8 * (end - begin)
    return False


def check_counts(config: dict[str, Any], stored: TensorTotals, name: str) -> None:
    """Check the numbers of layers and classes in a configuration against the weight files, in every
    part of a multimodal model.

    Must run before transformers reads the configuration. Raises PlainError.
    """
    for key, value, listed in integers_in(config):
        if LAYER_COUNT.search(key) and value > stored.tensors + FEW_LAYERS:
            raise PlainError(
                f"config.json of {name} sets {key[:80]} to {value:,}, but its weight files have "
                f"only {stored.tensors:,} tensors; they belong to "
                "different models; download the model again."
            )
        if CLASS_COUNT.search(key) and value > stored.largest_dimension + FEW_LAYERS:
            raise PlainError(
                f"config.json of {name} sets {key[:80]} to {value:,}, but no tensor in its "
                f"weight files has more than {stored.largest_dimension:,} "
                "rows; they belong to different models; download the model again."
            )
        if listed and value > max(MAX_LISTED, stored.largest_dimension) and "token" not in key:
            raise PlainError(
                f"config.json of {name} has {value:,} in {key[:80]}, more than any model "
                "uses; download the model again."
            )


def integers_in(config: dict[str, Any]) -> Iterator[tuple[str, int, bool]]:
    """Yield every integer with its key, at any depth, and whether it is in a list."""
    waiting: list[tuple[str, Any, bool]] = [
        (str(key), value, False) for key, value in config.items()
    ]
    while waiting:
        key, value, listed = waiting.pop()
        if isinstance(value, dict):
            waiting += [(str(inner), child, False) for inner, child in value.items()]
        elif isinstance(value, list):
            waiting += [(key, child, True) for child in value]
        elif type(value) is int:
            yield key, value, listed


def check_image_size(config: dict[str, Any], name: str) -> None:
    """Check the image size in a preprocessor_config.json.

    Raises PlainError if images would exceed memory.
    """
    for key, value, _ in integers_in(
        {key: config[key] for key in ("size", "crop_size", "pad_size") if key in config}
    ):
        if value > MAX_PIXELS_PER_SIDE:
            raise PlainError(
                f"preprocessor_config.json of {name} sets {key[:80]} to {value:,} pixels; at most "
                f"{MAX_PIXELS_PER_SIDE:,} are allowed, correct the file."
            )
