"""Kernels give what the stored weights say, and refuse what they would get wrong."""

import pytest
import torch
from torch import nn

from engine.calibration import InputStats
from engine.calibration.activation_stats import input_vectors
from engine.config.registry import TECHNIQUES
from engine.kernels import Kernel, NoKernelError, integer, kernel_for, supported_kernel
from engine.models.layers import kind_of
from engine.models.packed_modules import UNPACKING, Unpacking
from engine.techniques.implementations import compress
from tests.cases import for_each

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
    expected = layer(inputs)
    return ((kernel(inputs) - expected).norm() / expected.norm()).item()


def linear_layer(in_: int = 96, out: int = 48) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(in_, out)


@for_each("tokens", [1, 37])
@for_each("fields", [*INTEGER, *WEIGHT_ONLY, *SPARSE], ids=name)
def test_a_kernel_gives_what_the_simulation_gives(fields, tokens):
    inputs = inputs_of(3, tokens, 96)
    layer = stored_layer(fields, linear_layer(), inputs)
    kernel = kernel_or_skip(layer)
    assert difference(kernel, layer, inputs) < kernel.tolerance
    assert kernel(inputs).shape == (3, tokens, 48)


@for_each("fields", INTEGER, ids=name)
def test_inputs_beyond_what_was_seen_are_clipped_or_set_apart_as_in_the_simulation(fields):
    layer = stored_layer(fields, linear_layer(), inputs_of(3, 9, 96))
    kernel = kernel_or_skip(layer)
    assert difference(kernel, layer, 3 * inputs_of(2, 5, 96).flip(-1)) < kernel.tolerance


@pytest.mark.parametrize("fields", [INTEGER[0], INTEGER[1], INTEGER[3]], ids=name)
def test_an_integer_convolution_gives_what_the_simulation_gives(fields):
    torch.manual_seed(0)
    layer, images = nn.Conv2d(8, 12, 3, stride=2, padding=1), inputs_of(5, 8, 11, 11)
    stored = stored_layer(fields, layer, images)
    kernel = kernel_or_skip(stored)
    assert difference(kernel, stored, images) < kernel.tolerance


@pytest.mark.parametrize("wrong", [True, False])
def test_codes_go_in_halves_exactly_where_the_processor_overflows(wrong, monkeypatch):
    monkeypatch.setattr(integer, "int8_products_overflow", lambda: wrong)
    codes = torch.arange(-127, 128, dtype=torch.int8).view(5, 51)
    parts = integer.overflow_free_parts(codes)
    assert len(parts) == 1 + wrong and torch.equal(sum(part.int() for part in parts), codes.int())
    assert not wrong or all(part.abs().max() <= integer.MAX_SAFE_CODE for part in parts)
    assert (
        len(integer.overflow_free_parts(codes.clamp(-integer.MAX_SAFE_CODE, integer.MAX_SAFE_CODE)))
        == 1
    )


def test_whole_numbers_at_full_range_are_multiplied_exactly():
    codes, inputs = (
        torch.full((16, 512), 127, dtype=torch.int8),
        torch.full((3, 512), 255, dtype=torch.uint8),
    )
    codes[::2] = -127
    product = integer.Int8MatrixProduct(codes, torch.ones(16))(inputs, 1.0, 0)
    assert torch.equal(product, inputs.float() @ codes.float().T)


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
