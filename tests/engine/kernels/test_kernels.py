"""Kernels give what the stored weights say, and refuse what they would get wrong."""

import pytest
import torch
from torch import nn

from engine.kernels import NoKernelError, integer, kernel_for, supported_kernel
from engine.models.packed_modules import UNPACKING
from engine.techniques.implementations import compress
from tests.cases import for_each
from tests.stored_layers import (
    INTEGER,
    difference,
    inputs_of,
    kernel_or_skip,
    linear_layer,
    name,
    step,
    stored_layer,
)

WEIGHT_ONLY = [
    {"technique": "round-to-nearest"},
    {"technique": "round-to-nearest", "scheme": "asymmetric", "bits": 3},
    {"technique": "round-to-nearest", "scheme": "asymmetric", "granularity": "channel"},
    {"technique": "round-to-nearest", "granularity": "tensor", "bits": 2},
    {"technique": "round-to-nearest", "bits": 8, "granularity": "channel"},
    {"technique": "bitsandbytes", "format": "int8"},
]


SPARSE = [
    {"technique": "magnitude", "storage": "csr"},
    {"technique": "magnitude", "sparsity": 0.95, "storage": "csr", "values": "float16"},
]


@for_each("tokens", [1, 37])
@for_each("fields", [*INTEGER, *WEIGHT_ONLY, *SPARSE], ids=name)
def test_a_kernel_equals_the_simulation(fields, tokens):
    inputs = inputs_of(3, tokens, 96)
    layer = stored_layer(fields, linear_layer(), inputs)
    kernel = kernel_or_skip(layer)
    assert difference(kernel, layer, inputs) < kernel.tolerance
    assert kernel(inputs).shape == (3, tokens, 48)


REFUSED = [
    ({"technique": "bitsandbytes"}, (96, 48), "NF4 codes"),
    (
        {"technique": "round-to-nearest", "group_size": 48},
        (96, 48),
        "full groups of 32, 64, 128, 256",
    ),
    ({"technique": "round-to-nearest"}, (100, 48), "full groups"),
    ({"technique": "round-to-nearest"}, (96, 44), "multiple of 16 rows"),
    ({"technique": "round-to-nearest", "bits": 8}, (96, 48), "one scale a row"),
    (
        {
            "technique": "round-to-nearest",
            "bits": 5,
            "scheme": "asymmetric",
            "granularity": "channel",
        },
        (96, 48),
        "no zero points",
    ),
    ({"technique": "bitsandbytes", "format": "int8"}, (100, 48), "multiple of 16 weights"),
    ({"technique": "magnitude", "storage": "bitmask"}, (96, 48), "stored as a bitmask"),
    (
        {"technique": "magnitude", "pattern": "2:4", "storage": "n-of-m"},
        (96, 48),
        "tensor cores of NVIDIA GPUs, and this run computed on the CPU",
    ),
    (
        {"technique": "magnitude", "pattern": "4:8", "storage": "n-of-m"},
        (96, 48),
        "these are 4 of 8",
    ),
]


@for_each(
    ("fields", "shape", "why"),
    REFUSED,
    ids=lambda each: name(each) if isinstance(each, dict) else str(each),
)
def test_what_no_kernel_gets_right_is_refused_with_the_reason(fields, shape, why):
    layer = stored_layer(fields, linear_layer(*shape), inputs_of(2, shape[0]))
    with pytest.raises(NoKernelError, match=why):
        kernel_for(layer.stored, layer)


def test_other_layers_than_linear_ones_are_refused_with_the_reason():
    torch.manual_seed(0)
    images = inputs_of(2, 8, 11, 11)
    convolutions = "none for convolutions"
    refused = (
        (WEIGHT_ONLY[0], convolutions),
        (INTEGER[2], "one zero point for all images"),
        (INTEGER[-1], convolutions),
        (SPARSE[0], convolutions),
    )
    for fields, why in refused:
        layer = stored_layer(fields, nn.Conv2d(8, 16, 3), images)
        with pytest.raises(NoKernelError, match=why):
            kernel_for(layer.stored, layer)
    embedding = nn.Embedding(16, 32)
    layer = UNPACKING["embedding"](
        compress(step(WEIGHT_ONLY[0]), embedding.weight.detach()), embedding, torch.float32
    )
    with pytest.raises(NoKernelError, match="none for embeddings"):
        kernel_for(layer.stored, layer)


def test_what_torch_refuses_is_no_kernel_with_the_reason(monkeypatch):
    layer = stored_layer(INTEGER[0], linear_layer(), inputs_of(2, 96))
    monkeypatch.setattr(integer, "Int8MatrixProduct", lambda *_: torch.ones(2) @ torch.ones(3))
    with pytest.raises(NoKernelError, match=r"torch refuses on this processor \("):
        supported_kernel(layer)
