"""Floating-point formats against torch's casts and closed forms."""

import math

import pytest
import torch
from hypothesis import given, settings

from engine.errors import PlainError
from engine.pipeline.run import run
from engine.techniques.implementations import compress, storage_plan
from engine.techniques.quantization.float_formats.config import FloatingPoint
from engine.tensors.lookup_table import E2M1
from tests.cases import for_each
from tests.matrices import normal, weights
from tests.recipes import recipe_for
from tests.techniques import FLOATS, LOGARITHMIC, TERNARY, technique_id
from tests.tiny import tiny

few = settings(max_examples=20)
FP8 = {"fp8-e4m3": torch.float8_e4m3fn, "fp8-e5m2": torch.float8_e5m2}
each_fp8 = pytest.mark.parametrize("format", FP8)


@for_each(
    "config",
    [*FLOATS, *LOGARITHMIC, *(config for config in TERNARY if config.values == "ternary")],
    ids=technique_id,
)
@few
@given(weights())
def test_zero_stays_zero_and_no_weight_changes_its_sign(config, weight):
    result = compress(config, weight).to_dense()
    assert (
        result.isfinite().all()
        and (result[weight == 0] == 0).all()
        and (result * weight >= 0).all()
    )


@each_fp8
def test_without_a_scale_every_number_is_torchs_cast_bit_for_bit(format):
    largest = torch.finfo(FP8[format]).max
    weight = torch.cat(
        [
            normal(40, 100),
            torch.linspace(-largest, largest, 4000).view(40, 100),
            normal(40, 100) * 1e-3,
        ]
    )
    stored = compress(FloatingPoint(format=format, scale="none"), weight)
    assert torch.equal(stored.numbers.view(torch.uint8), weight.to(FP8[format]).view(torch.uint8))
    assert torch.equal(stored.to_dense(), weight.to(FP8[format]).float())


@each_fp8
def test_beyond_the_largest_number_is_the_largest(format):
    result = compress(
        FloatingPoint(format=format, scale="none"), torch.tensor([[1e30, -1e30, 1.0]])
    ).to_dense()
    assert result.tolist() == [[torch.finfo(FP8[format]).max, -torch.finfo(FP8[format]).max, 1.0]]


@each_fp8
@given(weights())
def test_a_scale_stretches_the_widest_weight_to_the_largest_number(format, weight):
    stored = compress(FloatingPoint(format=format, scale="channel"), weight)
    largest = stored.numbers.float().abs().amax(1)
    assert ((largest == torch.finfo(FP8[format]).max) | (weight.abs().amax(1) == 0)).all()
    relative = (stored.to_dense() - weight).abs() / weight.abs().amax(1, keepdim=True).clamp_min(
        1e-30
    )
    assert (relative <= (2**-4 if format == "fp8-e4m3" else 2**-3)).all()


def mxfp4_reference(block: list[float]) -> list[float]:
    """OCP Microscaling Formats 1.0, section 6.3, by trying every element: the nearest, of two
    equally near the even mantissa.
    """
    largest = max(map(abs, block))
    scale = 2.0 ** (math.floor(math.log2(largest)) - 2) if largest else 1.0
    near = [
        sorted(range(8), key=lambda code: (abs(E2M1[code] - size), code % 2))[0]
        for size in (abs(value) / scale for value in block)
    ]
    return [
        math.copysign(E2M1[code] * scale, value) for code, value in zip(near, block, strict=True)
    ]


@given(weights())
def test_mxfp4_is_the_closed_form_of_the_specification(weight):
    due = [
        [value for part in row.double().split(32) for value in mxfp4_reference(part.tolist())]
        for row in weight
    ]
    assert torch.equal(
        compress(FloatingPoint(format="mxfp4"), weight).to_dense(),
        torch.tensor(due, dtype=torch.float32),
    )


def test_mxfp4_takes_the_even_mantissa_between_two():
    halfway = torch.tensor([[0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, 7.9]])
    assert compress(FloatingPoint(format="mxfp4"), halfway).to_dense().tolist() == [
        [0.0, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0, 6.0]
    ]


def test_mxfp4_has_four_and_a_quarter_bits():
    assert storage_plan(FloatingPoint(format="mxfp4"), (64, 256)).nbytes * 8 / (64 * 256) == 4.25


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_a_precision_is_torchs_cast(dtype):
    weight = normal(7, 13)
    stored = compress(FloatingPoint(format=dtype), weight)
    assert (
        torch.equal(stored.weight, weight.to(getattr(torch, dtype)))
        and stored.nbytes == weight.numel() * getattr(torch, dtype).itemsize
    )


def test_a_weight_beyond_float16_is_refused_with_what_would_do():
    with pytest.raises(
        PlainError,
        match=(
            r"^A weight of 7e\+04 is beyond the largest float16, 65504; choose bfloat16, or add "
            r"the layer to Layers to skip \(layers\.skip\)"
        ),
    ):
        compress(FloatingPoint(format="float16"), torch.tensor([[1.0, 7e4]]))
    assert (
        compress(FloatingPoint(format="bfloat16"), torch.tensor([[1.0, 7e4]]))
        .to_dense()
        .isfinite()
        .all()
    )


def test_a_precision_that_the_file_has_already_is_refused(tmp_path):
    model = tiny("llama", tmp_path / "model")
    recipe = recipe_for(
        "llama", model, tmp_path / "data", {"technique": "float", "format": "float32"}
    )
    with pytest.raises(
        PlainError, match=r"is already stored in float32\. Choose a stronger setting"
    ):
        run(recipe)


def test_a_longer_precision_is_carried_out_and_says_that_only_the_bytes_change(tmp_path):
    model = tiny("llama", tmp_path / "model", torch.bfloat16)
    outcome = run(
        recipe_for("llama", model, tmp_path / "data", {"technique": "float", "format": "float32"})
    )
    treated = outcome.tables.layers.query("technique != ''")
    assert outcome.summary.result.compression < 1 and outcome.summary.result.bits_per_weight == 32.0
    assert outcome.summary.result.agreement == 1.0 and (treated.relative_error == 0).all()
    assert set(treated.note) == {
        (
            "float32 holds every bfloat16 weight of the file exactly: nothing is lost, only the "
            "bytes change"
        )
    }
