"""Our methods against what reference implementations made of the same weights and inputs; see
tests/golden/README.md for how.
"""

from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from engine.calibration import InputStats
from engine.techniques.implementations import compress
from engine.techniques.pruning.sparsegpt.config import SparseGPT
from engine.techniques.pruning.unstructured.config import Wanda
from engine.techniques.quantization import grid
from engine.techniques.quantization.activations.config import Activations
from engine.techniques.quantization.activations.method import smoothing_scales, static_range
from engine.techniques.quantization.awq.method import output_error
from engine.techniques.quantization.bitsandbytes.config import BitsAndBytes
from engine.techniques.quantization.gptq.config import GPTQ
from engine.techniques.quantization.grid import Levels
from engine.techniques.quantization.hqq.config import HQQ
from engine.techniques.quantization.hqq.method import fractional_codes
from engine.techniques.quantization.observers import observed_range, rounding_and_clipping
from engine.tensors.packing import unpack_bits
from engine.tensors.weights import IntegerWeight
from tests.cases import for_each

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


@for_each("name", ["gptq", "smoothquant", "observers", "hqq", "pruning", "bitsandbytes"])
def test_every_golden_says_what_made_it_and_is_small(name):
    path = FOLDER / f"{name}.safetensors"
    with safe_open(path, "pt") as file:
        assert "torch 2.13.0" in file.metadata()["made with"]
    assert path.stat().st_size < 300_000


# --- GPTQ: llm-compressor's quantize_weight -------------------------------------------------------


@pytest.fixture
def nearest_scales(monkeypatch):
    """The reference's scales are rounded to the nearest float16, also where ours are rounded
    down.
    """
    monkeypatch.setattr(grid, "float16_below", grid.nearest_float16)


@pytest.mark.usefixtures("nearest_scales")
@for_each("order", ["plain", "ordered"])
@for_each("group_size", [32, 128, 0])
@for_each(("bits", "scheme"), [(4, "symmetric"), (3, "symmetric"), (4, "asymmetric")])
def test_gptq_gives_llm_compressors_codes_where_scales_are_chosen_beforehand(
    bits, scheme, group_size, order
):
    due, name = golden("gptq"), f"{bits}-{group_size}-{scheme}-{order}"
    weight, seen = due["weight"].float(), golden_stats(due["inputs"][None])
    config = GPTQ(
        bits=bits,
        scheme=scheme,
        group_size=group_size,
        range="absmax",
        activation_order=order == "ordered",
    )
    stored = compress(config, weight, seen)
    # the same convention, in float16
    torch.testing.assert_close(stored.scales.float(), due[f"{name}.scales"], rtol=2**-11, atol=0)
    assert scheme == "symmetric" or torch.equal(stored.zero_codes(), due[f"{name}.zeros"])
    # one weight that falls between two codes may tip over, and its error goes on to the columns
    # after it
    assert share_equal(codes_of(stored), due[f"{name}.codes"]) > 0.98
    theirs = IntegerWeight(
        stored.shape, bits, stored.group_size, due[f"{name}.codes"], stored.scales, stored.zeros
    )
    assert output_error(stored.to_dense() - weight, seen) == pytest.approx(
        output_error(plain_dense(theirs) - weight, seen), rel=0.01
    )


@pytest.mark.usefixtures("nearest_scales")
def test_gptq_gives_most_settings_exactly_llm_compressors_codes():
    due = golden("gptq")
    weight, seen, equal = due["weight"].float(), golden_stats(due["inputs"][None]), []
    for name in (key.removesuffix(".codes") for key in due if key.endswith(".codes")):
        bits, size, scheme, order = name.split("-")
        config = GPTQ(
            bits=int(bits),
            group_size=int(size),
            scheme=scheme,
            range="absmax",
            activation_order=order == "ordered",
        )
        equal.append(torch.equal(codes_of(compress(config, weight, seen)), due[f"{name}.codes"]))
    assert len(equal) == 18 and sum(equal) >= 14


def plain_dense(grid: IntegerWeight) -> torch.Tensor:
    """Dequantize a grid whose codes are not packed."""
    width, zeros = grid.group_size, grid.zero_codes().float()
    return (
        (grid.codes.float().unflatten(1, (-1, width)) - zeros[..., None])
        * grid.scales.float()[..., None]
    ).flatten(1)


# --- SmoothQuant and observers: llm-compressor, torch.ao ------------------------------------------


@pytest.mark.parametrize("alpha", [0.25, 0.5, 0.8])
def test_smoothing_scales_are_llm_compressors_but_for_one_factor(alpha):
    """It takes max - min of the inputs and twice the weights' largest: on inputs of both signs 2^(2
    alpha - 1) for all channels alike.
    """
    due = golden("smoothquant")
    scales = smoothing_scales(
        [due["first"], due["second"]], golden_stats(due["inputs"][None], False), alpha
    )
    torch.testing.assert_close(
        scales * 2 ** (2 * alpha - 1), due[f"scales-{alpha}"], rtol=1e-5, atol=0
    )


@for_each("reference", ["torch", "llmcompressor"])
@for_each("observer", ["min-max", "moving-average"])
def test_observers_choose_the_same_range(observer, reference):
    due = golden("observers")
    ours = observed_range(golden_stats(due["batches"], False), Activations(observer=observer))
    torch.testing.assert_close(
        torch.tensor(ours), due[f"{reference}.{observer}"], rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("observer", ["min-max", "moving-average"])
def test_scale_and_zero_point_of_a_range_are_torchs(observer):
    due = golden("observers")
    ours = static_range(Activations(observer=observer), golden_stats(due["batches"], False))
    torch.testing.assert_close(ours["scale"], due[f"torch.{observer}.scale"], rtol=1e-6, atol=0)
    assert ours["zero"].item() == due[f"torch.{observer}.zero"].item()


@pytest.mark.parametrize("reference", ["torch", "llmcompressor"])
def test_the_range_of_least_squares_loses_no_more_than_a_reference_search(reference):
    due, config = golden("observers"), Activations(observer="mse")
    seen = golden_stats(due["batches"], False)
    ours, theirs = (
        rounding_and_clipping(seen.sample(), *ends, config)[0]
        for ends in (observed_range(seen, config), due[f"{reference}.mse"].double().tolist())
    )
    assert ours <= 1.01 * theirs


@pytest.mark.parametrize("scheme", ["symmetric", "asymmetric"])
def test_the_percentile_range_is_onnxruntimes_to_two_bins_of_its_histogram(scheme):
    due = golden("observers")
    ours = observed_range(
        golden_stats(due["batches"], False),
        Activations(observer="percentile", percentile=99.9, scheme=scheme),
    )
    bin_ = due["batches"].float().abs().max().item() * (1 if scheme == "symmetric" else 2) / 2048
    torch.testing.assert_close(
        torch.tensor(ours), due[f"onnxruntime.percentile-{scheme}"], rtol=0, atol=2 * bin_
    )


def test_the_entropy_range_is_nearly_onnxruntimes_and_loses_no_more():
    """Theirs tries every pair of bins on both sides of zero, ours every eighth bin of the
    magnitudes.
    """
    due, config = golden("observers"), Activations(observer="entropy", scheme="symmetric")
    seen = golden_stats(due["batches"], False)
    ours, theirs = observed_range(seen, config), due["onnxruntime.entropy"].tolist()
    assert ours == pytest.approx(theirs, rel=0.03)
    assert (
        rounding_and_clipping(seen.sample(), *ours, config)[0]
        <= 1.01 * rounding_and_clipping(seen.sample(), *theirs, config)[0]
    )


# --- SparseGPT and Wanda: llm-compressor's functions ----------------------------------------------

PRUNED = {
    "half": {"sparsity": 0.5},
    "third": {"sparsity": 0.3},
    "2:4": {"pattern": "2:4"},
    "4:8": {"pattern": "4:8"},
}


@for_each("name", PRUNED)
def test_wanda_keeps_llm_compressors_weights(name):
    due = golden("pruning")
    left = (
        compress(
            Wanda(scope="row", **PRUNED[name]),
            due["weight"].float(),
            golden_stats(due["inputs"][None], False),
        ).to_dense()
        != 0
    )
    differ = (left != due[f"wanda.{name}"]).sum(1)
    # of 76.8 weights a row we remove 77, they 76
    assert (differ <= 1).all() if name == "third" else not differ.any()


@for_each("name", PRUNED)
def test_sparsegpt_loses_what_llm_compressors_loses(name):
    """An unstructured block of theirs removes one weight more, the one at its threshold: of these
    small blocks that is a two thousandth.
    """
    due = golden("pruning")
    weight, seen, theirs = (
        due["weight"].float(),
        golden_stats(due["inputs"][None]),
        due[f"sparsegpt.{name}"],
    )
    ours = compress(SparseGPT(**PRUNED[name]), weight, seen).to_dense()
    assert share_equal(ours != 0, theirs != 0) > 0.995
    ratio = output_error(ours - weight, seen) / output_error(theirs - weight, seen)
    assert ratio == pytest.approx(1, rel=0.01) if ":" in name else 0.98 < ratio < 1.005


# --- HQQ: the hqq package's default solver --------------------------------------------------------


def hqq_golden(
    bits: int, axis: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Weight, codes, scales and zero points, as groups along rows. Down columns the package takes
    every second of 64 rows into one group.
    """
    due, name = golden("hqq"), f"{bits}-axis{1 if axis == 'row' else 0}"
    weight, codes, scales, zeros = (
        due[key] for key in ("weight", f"{name}.codes", f"{name}.scales", f"{name}.zeros")
    )
    if axis == "row":
        return weight, codes.view(64, 128), scales.view(64, 4), zeros.view(64, 4)
    weight, codes = (
        each.reshape(32, 2, 128).transpose(0, 1).reshape(64, 128) for each in (weight, codes)
    )
    return weight.T, codes.T, scales.view(2, 128).T, zeros.view(2, 128).T


@for_each("axis", ["row", "column"])
@for_each("bits", [2, 3, 4, 8])
def test_hqq_finds_the_packages_zero_points_and_codes(bits, axis):
    weight, codes, scales, zeros = hqq_golden(bits, axis)
    stored = compress(
        HQQ(bits=bits, group_size=32, axis=axis), weight if axis == "row" else weight.T.contiguous()
    )
    grid = stored if axis == "row" else stored.columns
    torch.testing.assert_close(grid.scales.float(), scales, rtol=2**-11, atol=0)
    # zero points are stored in float16, and codes chosen for that: of 8 bits a few are one off
    assert (grid.zeros.float() - zeros).abs().mean() < (0.01 if bits < 8 else 0.1)
    ours = codes_of(grid)
    assert (
        share_equal(ours, codes) > (0.998 if bits < 8 else 0.96)
        and (ours.int() - codes.int()).abs().max() <= 1
    )
    theirs = (
        (codes.float().unflatten(1, (-1, 32)) - zeros[..., None]).mul(scales[..., None]).flatten(1)
    )
    assert (grid.to_dense() - weight).norm() < 1.01 * (theirs - weight).norm()


@for_each("axis", ["row", "column"])
@for_each("bits", [2, 3, 4, 8])
def test_on_the_packages_own_grid_the_codes_are_equal(bits, axis):
    weight, codes, scales, zeros = hqq_golden(bits, axis)
    groups = weight.unflatten(1, (-1, 32))
    ours = fractional_codes(
        groups, scales[..., None], zeros[..., None], Levels.of(HQQ(bits=bits).rounding())
    ).flatten(1)
    assert torch.equal(ours.to(torch.uint8), codes)


# --- NF4, FP4 and INT8: bitsandbytes --------------------------------------------------------------


@pytest.mark.parametrize("format", ["nf4", "fp4"])
def test_four_bit_codes_and_absmax_are_those_of_the_library_that_made_the_golden(format):
    due = golden("bitsandbytes")
    once, twice = (
        compress(BitsAndBytes(format=format, double_quantization=double), due["weight"].float())
        for double in (False, True)
    )
    assert torch.equal(once.codes, due[f"{format}.codes"]) and torch.equal(
        once.absmax, due[f"{format}.absmax"]
    )
    assert torch.equal(twice.absmax, due[f"{format}-double.absmax"]) and torch.equal(
        twice.nested_absmax, due[f"{format}-double.nested"]
    )
    assert torch.equal(twice.offset, due[f"{format}-double.offset"])


def test_int8_codes_and_absmax_are_those_of_the_library_that_made_the_golden():
    due = golden("bitsandbytes")
    stored = compress(BitsAndBytes(format="int8"), due["weight"].float())
    assert torch.equal(stored.codes, due["int8.codes"]) and torch.equal(
        stored.absmax, due["int8.absmax"]
    )
