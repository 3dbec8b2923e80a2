"""Number formats that are no even grid: against torch's casts, closed forms, and each other."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import PlainError
from engine.pipeline.run import run
from engine.quantities import megabytes
from engine.recipe import Recipe
from engine.techniques.implementations import compress, storage_plan
from engine.techniques.quantization.codebook.config import Codebook
from engine.techniques.quantization.fixed_levels.config import Logarithmic, Ternary
from engine.techniques.quantization.float_formats.config import FloatingPoint
from engine.techniques.quantization.rounding.config import RoundToNearest
from engine.tensors.lookup_table import E2M1
from tests.answers import forecast, what_if
from tests.cases import for_each
from tests.engine.techniques.quantization.test_grid import weights
from tests.recipes import recipe_for
from tests.techniques import CODEBOOKS, FLOATS, HUFFMAN, LOGARITHMIC, TERNARY, technique_id
from tests.tiny import tiny

few = settings(max_examples=20)
FP8 = {"fp8-e4m3": torch.float8_e4m3fn, "fp8-e5m2": torch.float8_e5m2}
each_fp8 = pytest.mark.parametrize("format", FP8)


def squared_error(config, weight) -> float:
    """Squared error."""
    return (compress(config, weight).to_dense() - weight).double().square().sum().item()


def normal(*shape, seed=0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


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


# --- floating point -------------------------------------------------------------------------------


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
    expected = [
        [value for part in row.double().split(32) for value in mxfp4_reference(part.tolist())]
        for row in weight
    ]
    assert torch.equal(
        compress(FloatingPoint(format="mxfp4"), weight).to_dense(),
        torch.tensor(expected, dtype=torch.float32),
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
            r"^A weight of 7e\+04 is beyond the largest float16, 65504; choose bfloat16, or skip "
            r"the layer"
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


# --- three values or two --------------------------------------------------------------------------


@pytest.mark.parametrize("granularity", ["tensor", "channel", "group"])
@given(weights())
def test_ternary_weights_are_minus_one_zero_or_one_scale(granularity, weight):
    stored = compress(Ternary(granularity=granularity), weight)
    assert stored.flat_codes().max() <= 2
    mean = weight.abs().mean().item()
    if granularity == "tensor" and mean:
        signs = stored.to_dense() / stored.scales.float()
        assert set(signs.unique().tolist()) <= {-1.0, 0.0, 1.0}
        assert stored.scales.item() == pytest.approx(mean, rel=1e-3)


@given(weights())
def test_binary_weights_are_their_sign_times_the_mean_magnitude(weight):
    result = compress(Ternary(values="binary", granularity="channel"), weight).to_dense()
    mean = weight.abs().mean(1, keepdim=True).expand_as(weight)
    torch.testing.assert_close(result.abs(), mean, rtol=1e-3, atol=0)
    assert (result.signbit() == weight.signbit())[weight != 0].all()


def test_the_mean_magnitude_is_the_best_scale_for_signs():
    weight = normal(8, 64)
    mean = weight.abs().mean().item()
    smallest = squared_error(Ternary(values="binary", granularity="tensor"), weight)
    for scale in (0.9 * mean, 1.1 * mean):
        assert smallest < (weight.sign() * scale - weight).square().sum()


def test_five_ternary_weights_or_eight_binary_ones_take_a_byte():
    shape = (64, 320)
    for values, bits in (("ternary", 1.6), ("binary", 1.0)):
        stored = compress(Ternary(values=values, granularity="tensor"), normal(*shape))
        assert (
            stored.codes.nbytes * 8 / (64 * 320) == bits
            and stored.nbytes == stored.codes.nbytes + 2
        )


# --- powers of two --------------------------------------------------------------------------------


@for_each("config", LOGARITHMIC, ids=technique_id)
@few
@given(weights())
def test_inside_the_range_the_logarithm_is_off_by_at_most_half_a_step(config, weight):
    stored = compress(config, weight)
    result, smallest = stored.to_dense(), stored.values()[stored.values() > 0].min()
    scales = stored.scales.float()
    scales = (
        scales
        if scales.shape[1] == 1
        else scales.repeat_interleave(stored.group_size, 1)[:, : weight.shape[1]]
    )
    inside = weight.abs() >= (smallest * scales).clamp_min(1e-37)
    off = (result.double() / weight.double()).log2().abs()
    assert (off[inside] <= 0.5 / config.steps_per_octave + 1e-3).all()


@few
@given(weights(), st.integers(2, 8))
def test_with_scales_in_a_byte_every_weight_is_a_power_of_two(weight, bits):
    stored = compress(Logarithmic(bits=bits), weight)
    result = stored.to_dense()
    assert stored.scales.itemsize == 1 and (result[result != 0].frexp().mantissa.abs() == 0.5).all()


def test_steps_in_an_octave_make_what_is_in_range_finer():
    weight = normal(16, 256)
    assert [
        squared_error(Logarithmic(bits=8, steps_per_octave=steps), weight) for steps in (1, 2, 4)
    ] == sorted(
        (squared_error(Logarithmic(bits=8, steps_per_octave=steps), weight) for steps in (1, 2, 4)),
        reverse=True,
    )


# --- codebooks ------------------------------------------------------------------------------------


@few
@given(weights(), st.integers(1, 8))
def test_k_means_is_never_worse_than_as_many_even_levels(weight, bits):
    even = torch.linspace(weight.min().item(), weight.max().item(), 2**bits, dtype=torch.float64)
    nearest = (weight.double()[..., None] - even).abs().amin(-1).square().sum().item()
    size = weight.double().square().sum().item()
    for start in ("best", "linear"):
        assert (
            squared_error(Codebook(bits=bits, start=start), weight)
            <= nearest * (1 + 1e-6) + size * 1e-12
        )


@for_each("bits", [2, 3, 4, 6, 8])
def test_k_means_beats_the_grid_with_one_scale(bits):
    weight = normal(64, 256)
    for scheme in ("symmetric", "asymmetric"):
        assert squared_error(Codebook(bits=bits, start="best"), weight) < squared_error(
            RoundToNearest(bits=bits, granularity="tensor", scheme=scheme, range="mse"), weight
        )


@for_each("config", [*CODEBOOKS, *HUFFMAN], ids=technique_id)
@few
@given(weights())
def test_every_weight_takes_the_nearest_value_of_its_book(config, weight):
    stored = compress(config, weight)
    books = stored.books[torch.arange(len(weight)) // stored.rows]
    assert (stored.books.diff(dim=1) >= 0).all()
    nearest = (weight[..., None] - books[:, None]).abs().amin(-1)
    torch.testing.assert_close(
        (stored.to_dense() - weight).abs(),
        nearest,
        rtol=1e-5,
        atol=1e-6 * weight.abs().max().item(),
    )


def test_each_value_is_the_mean_of_its_weights():
    weight = normal(32, 64)
    stored = compress(Codebook(bits=2), weight)
    for place, value in enumerate(stored.books[0].tolist()):
        assert value == pytest.approx(
            weight.flatten()[stored.indices() == place].mean().item(), abs=1e-5
        )


def test_a_layer_with_as_few_values_as_the_book_is_stored_exactly():
    values = torch.tensor([-3.0, -0.5, 0.0, 2.0])
    weight = values[torch.randint(4, (9, 40), generator=torch.Generator().manual_seed(0))]
    assert torch.equal(compress(Codebook(bits=2, start="density"), weight).to_dense(), weight)


def test_a_random_start_follows_the_seed():
    weight, config = normal(16, 64), Codebook(start="random")
    with torch.random.fork_rng(devices=[]):
        books = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            torch.rand(len(books))  # what else draws does not matter
            books.append(compress(config, weight).books)
    assert torch.equal(books[0], books[1]) and not torch.equal(books[0], books[2])


@for_each("config", HUFFMAN, ids=technique_id)
def test_huffman_coding_changes_the_bytes_and_not_the_weights(config):
    weight = normal(48, 172)
    coded, plain = (
        compress(config, weight),
        compress(config.model_copy(update={"coding": "fixed"}), weight),
    )
    assert torch.equal(coded.to_dense(), plain.to_dense()) and torch.equal(
        coded.to("cpu").indices(), plain.indices()
    )
    assert (
        coded.codes.nbytes <= plain.codes.nbytes
        and coded.nbytes <= storage_plan(config, (48, 172)).nbytes
    )
    assert coded.nbytes == sum(value.nbytes for value in coded.tensors().values())


def test_the_size_that_huffman_coding_is_said_to_give_is_what_it_gives():
    weight = normal(64, 256)
    coded, plain = (
        compress(Codebook(bits=4, coding=coding), weight) for coding in ("huffman", "fixed")
    )
    note = plain.note()
    assert (
        note.startswith("with Huffman coding the indices would take ")
        and f"{megabytes(coded.codes.nbytes)} instead of 8.2 kB" in note
    )
    assert (
        coded.note().startswith("Huffman-coded indices take ")
        and coded.note().split("take ")[1] == note.split("take ")[1]
    )


def test_a_forecast_of_huffman_coding_is_an_upper_bound_and_says_so(tmp_path):
    model = tiny("llama", tmp_path / "model")
    recipe = recipe_for(
        "llama", model, tmp_path / "data", {"technique": "codebook", "coding": "huffman"}
    )
    estimate, size = forecast(recipe), run(recipe).summary.result.size_bytes
    assert estimate.at_most and not estimate.at_least and estimate.size_bytes > size
    assert not forecast(
        recipe.model_copy(update={"steps": (Codebook(),)}).model_dump(mode="json")
    ).at_most


def test_a_what_if_of_a_codebook_is_repeatable_and_names_the_huffman_size(tmp_path):
    model = str(tiny("llama", tmp_path / "model"))
    step = {"technique": "codebook", "start": "random"}
    first, again = (what_if(model, "model.layers.0.mlp.up_proj", step) for _ in range(2))
    assert first.row == again.row and "Huffman" in first.row.note


@for_each(
    ("step", "sentence"),
    [
        (
            {"technique": "codebook", "bits": 0},
            "Step 1, bits: 0 is not allowed; give a whole number from 1 to 8.",
        ),
        (
            {"technique": "codebook", "rows": -1},
            "Step 1, rows: -1 is not allowed; give a whole number from 0 to 65536.",
        ),
        (
            {"technique": "log", "steps_per_octave": 3},
            "Step 1, steps_per_octave: 3 is not allowed; give 1, 2 or 4.",
        ),
        (
            {"technique": "ternary", "group_size": 0},
            "Step 1, group_size: 0 is not allowed; give a whole number from 1 to 65536.",
        ),
    ],
)
def test_what_is_out_of_bounds_is_refused_in_a_sentence(step, sentence):
    with pytest.raises(PlainError) as error:
        Recipe.from_dict({"steps": [step]})
    assert str(error.value) == sentence
