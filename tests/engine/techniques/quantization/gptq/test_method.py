"""GPTQ against its definition, a plain column-by-column rewrite, closed forms, and llm-compressor's
results.
"""

import pytest
import torch

from engine.calibration import InputStats
from engine.techniques.implementations import compress, storage_plan
from engine.techniques.quantization.awq.config import AWQ
from engine.techniques.quantization.awq.method import summed_output_error
from engine.techniques.quantization.gptq.config import GPTQ
from engine.tensors.weights import IntegerWeight
from tests.cases import for_each
from tests.goldens import codes_of, golden, golden_stats, share_equal
from tests.quantization import CPU, SHAPES, output_loss, rows_of, seen_of, weight_of

SETTINGS = [
    GPTQ(
        bits=bits,
        group_size=size,
        scheme=scheme,
        activation_order=order,
        static_groups=static,
        range=range,
    )
    for bits in (2, 3, 4)
    for size in (0, 32, 100)
    for scheme in ("symmetric", "asymmetric")
    for order, static in ((False, True), (False, False), (True, True), (True, False))
    for range in ("absmax", "mse")
]


def plain_gptq(weight: torch.Tensor, rows: torch.Tensor, config: GPTQ) -> torch.Tensor:
    """The method in float64 as the paper states it, one column after another on the whole inverse;
    no blocks, no factorisation.
    """
    left, hessian = weight.double().clone(), (rows.double().T @ rows.double()) / len(rows)
    hessian += (
        config.damping * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=torch.float64)
    )
    inverse, half = hessian.inverse(), 2 ** (config.bits - 1)
    width, result = config.group_size or weight.shape[1], torch.empty_like(left)
    for column in range(weight.shape[1]):
        if column % width == 0:
            exact = left[:, column : column + width].abs().amax(1) / (half - 0.5)
            nearest = exact.half()
            scale = nearest.where(
                nearest.double() <= exact, torch.nextafter(nearest, torch.zeros_like(nearest))
            ).double()
        result[:, column] = (left[:, column] / scale).round().clamp(-half, half - 1) * scale
        error = (left[:, column] - result[:, column]) / inverse[column, column]
        left -= error[:, None] * inverse[column]
        inverse -= (
            inverse[:, column : column + 1] @ inverse[column : column + 1] / inverse[column, column]
        )
    return result.float()


@for_each("bits", [3, 4])
@for_each("size", [0, 16, 32, 100])
def test_it_is_the_method_of_the_paper(bits, size):
    config = GPTQ(
        bits=bits, group_size=size, static_groups=False, activation_order=False, range="absmax"
    )
    weight, rows = weight_of((24, 172)), rows_of(172)
    ours, due = compress(config, weight, seen_of(rows)).to_dense(), plain_gptq(weight, rows, config)
    # single codes may tip over where float32 rounds the other way
    assert (ours - due).abs().lt(1e-3).float().mean() > 0.98
    assert summed_output_error(ours - weight, seen_of(rows)) == pytest.approx(
        summed_output_error(due - weight, seen_of(rows)), rel=0.02
    )


@for_each("shape", SHAPES, ids=str)
@for_each("config", SETTINGS, ids=str)
def test_it_is_stored_as_planned_and_the_outputs_lose_less_than_by_rounding(config, shape):
    weight, seen = weight_of(shape), seen_of(rows_of(shape[1]))
    stored, plan = compress(config, weight, seen), storage_plan(config, shape)
    assert plan.settings() == stored.settings() and plan.nbytes == stored.nbytes
    # 2 bits may lose a little on one layer
    greedy = (
        1.2 if config.bits == 2 and not config.activation_order else 1.02 if config.bits == 2 else 1
    )
    assert output_loss(stored, weight, seen) < greedy * output_loss(
        compress(config.rounding(), weight), weight, seen
    )


@pytest.mark.parametrize(
    "config",
    [GPTQ(), GPTQ(bits=3, group_size=0), GPTQ(scheme="asymmetric", group_size=48)],
    ids=str,
)
def test_with_inputs_that_do_not_go_together_it_is_plain_rounding(config):
    weight, seen = weight_of((24, 172)), seen_of(torch.eye(172) * 3)
    assert torch.equal(
        compress(config, weight, seen).to_dense(), compress(config.rounding(), weight).to_dense()
    )


@for_each("scheme", ["symmetric", "asymmetric"])
@for_each("range", ["absmax", "mse", "percentile", "rms", "entropy"])
@for_each("order", [False, True])
def test_static_groups_have_the_scales_of_rounding_with_the_same_range(range, scheme, order):
    config = GPTQ(bits=3, group_size=48, scheme=scheme, range=range, activation_order=order)
    weight, seen = weight_of((24, 172)), seen_of(rows_of(172))
    stored, rounded = compress(config, weight, seen), compress(config.rounding(), weight)
    assert config.rounding().range == range and torch.equal(stored.scales, rounded.scales)
    assert scheme == "symmetric" or torch.equal(stored.zero_codes(), rounded.zero_codes())


@pytest.mark.parametrize("scheme", ["symmetric", "asymmetric"])
def test_groups_that_are_not_static_search_the_range_of_what_they_hold_by_then(scheme):
    weight, seen = weight_of((24, 172)), seen_of(rows_of(172))
    config = GPTQ(bits=3, group_size=48, scheme=scheme, activation_order=False, static_groups=False)
    stored, rounded = compress(config, weight, seen), compress(config.rounding(), weight)
    # nothing was pushed onto the first group
    assert torch.equal(stored.scales[:, 0], rounded.scales[:, 0])
    assert not torch.equal(stored.scales[:, 1:], rounded.scales[:, 1:])


@for_each("scheme", ["symmetric", "asymmetric"])
@for_each("static", [True, False])
def test_a_searched_range_loses_less_where_groups_have_an_outlier(scheme, static):
    weight, seen = (
        weight_of((64, 172)),
        seen_of(torch.randn(600, 172, generator=torch.Generator().manual_seed(2))),
    )
    weight[:, ::32] *= 4
    shared = {"bits": 3, "scheme": scheme, "static_groups": static}
    searched, widest = (
        output_loss(compress(GPTQ(range=range, **shared), weight, seen), weight, seen)
        for range in ("mse", "absmax")
    )
    assert searched < widest


def test_in_halves_the_calibration_data_gives_the_same_codes():
    weight, rows, halves = weight_of((24, 172)), rows_of(172), InputStats(172, CPU)
    halves.add(rows[:300])
    halves.add(rows[300:])
    whole = compress(GPTQ(), weight, seen_of(rows))
    # bytes of two codes; float32 sums differ in the last digit
    assert (whole.codes == compress(GPTQ(), weight, halves).codes).float().mean() > 0.98


def test_strongest_inputs_first_loses_less_where_inputs_differ():
    weight, seen = weight_of((64, 172)), seen_of(rows_of(172))
    plain, ordered = (
        output_loss(compress(GPTQ(bits=3, activation_order=order), weight, seen), weight, seen)
        for order in (False, True)
    )
    assert ordered < plain


def test_layers_with_one_input_share_its_factorisation():
    seen = seen_of(rows_of(172))
    compress(GPTQ(), weight_of((24, 172)), seen)
    compress(GPTQ(bits=3), weight_of((24, 172)), seen)
    assert len(seen.factors) == 1


def test_inputs_that_never_come_take_nothing_with_them():
    rows = rows_of(172)
    rows[:, ::3] = 0
    stored = compress(GPTQ(), weight_of((24, 172)), seen_of(rows))
    assert stored.to_dense().isfinite().all() and not stored.to_dense()[:, ::3].any()
    assert output_loss(stored, weight_of((24, 172)), seen_of(rows)) < output_loss(
        compress(GPTQ().rounding(), weight_of((24, 172))), weight_of((24, 172)), seen_of(rows)
    )


def test_a_singular_matrix_is_damped_more_with_a_note():
    rows = rows_of(172, count=3) * 1e6
    seen = seen_of(rows)
    stored = compress(GPTQ(damping=0.0001), weight_of((24, 172)), seen)
    assert stored.to_dense().isfinite().all()
    seen.gram[0, 1] = seen.gram[1, 0] = 1e3 * seen.gram.abs().max()  # no Gram matrix of anything
    seen.factors.clear()
    assert compress(GPTQ(), weight_of((24, 172)), seen).to_dense().isfinite().all()
    assert any("damping 0.01" in warning for warning in seen.warnings)


def test_constant_and_empty_layers_stay_what_they_are():
    seen = seen_of(rows_of(172))
    for config in (GPTQ(), AWQ()):
        assert not compress(config, torch.zeros(6, 172), seen).to_dense().any()
        constant = compress(config, torch.full((6, 172), 0.3), seen).to_dense()
        assert (constant - 0.3).abs().max() < 0.3


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
    assert summed_output_error(stored.to_dense() - weight, seen) == pytest.approx(
        summed_output_error(plain_dense(theirs) - weight, seen), rel=0.01
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
