"""Results of reference implementations on the same weights and inputs.

tests/golden/README.md says how they were made.
"""

from functools import cache
from pathlib import Path

import torch
from safetensors import safe_open

from engine.calibration import InputStats
from engine.tensors.packing import unpack_bits
from engine.tensors.weights import IntegerWeight

FOLDER = Path(__file__).parent / "golden"
CPU = torch.device("cpu")
Tensors = dict[str, torch.Tensor]


@cache
def golden(name: str) -> Tensors:
    with safe_open(FOLDER / f"{name}.safetensors", "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def golden_stats(batches: torch.Tensor, wants_gram: bool = True) -> InputStats:
    """batches: (batches, vectors, width)"""
    seen = InputStats(batches.shape[-1], CPU, wants_gram)
    for batch in batches.float():
        seen.add(batch)
    return seen


def codes_of(grid: IntegerWeight) -> torch.Tensor:
    return unpack_bits(grid.codes, grid.bits, grid.shape[0] * grid.shape[1]).view(grid.shape)


def share_equal(one: torch.Tensor, other: torch.Tensor) -> float:
    return (one == other).float().mean().item()


PRUNED = {
    "half": {"sparsity": 0.5},
    "third": {"sparsity": 0.3},
    "2:4": {"pattern": "2:4"},
    "4:8": {"pattern": "4:8"},
}
