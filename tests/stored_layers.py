"""Layers of packed weights and the inputs they are tried with."""

import pytest
import torch
from torch import nn

from engine.calibration import InputStats
from engine.calibration.activation_stats import input_vectors
from engine.config.registry import TECHNIQUES
from engine.kernels import Kernel, NoKernelError, supported_kernel
from engine.models.layers import kind_of
from engine.models.packed_modules import UNPACKING, Unpacking
from engine.techniques.implementations import compress

INTEGER = [
    {"technique": "activations"},
    {"technique": "activations", "scheme": "symmetric"},
    {"technique": "activations", "mode": "dynamic"},
    {"technique": "activations", "mode": "dynamic", "scheme": "symmetric"},
    {"technique": "activations", "mode": "dynamic", "per": "tensor"},
    {"technique": "activations", "weight_bits": 4, "activation_bits": 5, "mode": "dynamic"},
    {"technique": "smoothquant", "observer": "percentile"},
    {"technique": "llm-int8", "threshold": 3.0},
]


def step(fields: dict):
    return TECHNIQUES[fields["technique"]](**fields)


def name(fields: dict) -> str:
    return "-".join(map(str, fields.values()))


def stored_layer(fields: dict, layer: nn.Module, inputs: torch.Tensor) -> Unpacking:
    """The layer as a run would store it after it saw these inputs."""
    config, unpacking = step(fields), UNPACKING[kind_of(layer)]
    weight = layer.weight.detach().flatten(1)
    plain = unpacking(compress(TECHNIQUES["round-to-nearest"](), weight), layer, torch.float32)
    if config.needs == "nothing":
        return unpacking(compress(config, weight), layer, torch.float32)
    rows = input_vectors(plain, inputs)
    seen = InputStats(rows.shape[1], torch.device("cpu"), wants_gram=False)
    seen.add(rows)
    return unpacking(compress(config, weight, seen), layer, torch.float32)


def kernel_or_skip(layer: Unpacking) -> Kernel:
    """Not every processor and build of torch has every kernel."""
    try:
        return supported_kernel(layer)
    except NoKernelError as none:
        if "torch refuses" not in str(none):
            raise
        pytest.skip(str(none))


def inputs_of(*shape: int) -> torch.Tensor:
    """Lopsided, with a strong channel."""
    inputs = torch.randn(*shape, generator=torch.Generator().manual_seed(1)) + 0.3
    inputs[..., 3] *= 6
    return inputs


def difference(kernel: Kernel, layer: Unpacking, inputs: torch.Tensor) -> float:
    due = layer(inputs)
    return ((kernel(inputs) - due).norm() / due.norm()).item()


def linear_layer(in_: int = 96, out: int = 48) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(in_, out)
