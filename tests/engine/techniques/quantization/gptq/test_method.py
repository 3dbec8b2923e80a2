"""GPTQ and AWQ against their definitions: a plain column-by-column rewrite, closed forms, and what
must hold on any data.
"""

import pytest
import torch

from engine.calibration import Fold, InputStats
from engine.techniques.implementations import compress, input_scales, storage_plan
from engine.techniques.quantization.awq.config import AWQ
from engine.techniques.quantization.awq.method import output_error
from engine.techniques.quantization.gptq.config import GPTQ
from tests.cases import for_each

CPU = torch.device("cpu")
SHAPES = [(24, 172), (9, 352), (16, 64)]
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


def rows_of(width: int, count: int = 600, seed: int = 0) -> torch.Tensor:
    """Inputs of which some channels are loud and many go together.  (count, width)"""
    draw = torch.Generator().manual_seed(seed)
    mixed = torch.randn(count, width // 2, generator=draw) @ torch.randn(
        width // 2, width, generator=draw
    )
    return mixed * (0.7 * torch.randn(width, generator=draw)).exp() + 0.1 * torch.randn(
        count, width, generator=draw
    )


def seen_of(rows: torch.Tensor) -> InputStats:
    seen = InputStats(rows.shape[1], CPU)
    seen.add(rows)
    return seen


def weight_of(shape: tuple[int, int]) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def output_loss(stored, weight: torch.Tensor, seen: InputStats) -> float:
    return output_error(stored.to_dense() - weight, seen)


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
    result, expected = (
        compress(config, weight, seen_of(rows)).to_dense(),
        plain_gptq(weight, rows, config),
    )
    # single codes may tip over where float32 rounds the other way
    assert (result - expected).abs().lt(1e-3).float().mean() > 0.98
    assert output_error(result - weight, seen_of(rows)) == pytest.approx(
        output_error(expected - weight, seen_of(rows)), rel=0.02
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


def test_a_matrix_that_cannot_be_inverted_is_damped_more_and_that_is_said():
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


# --- AWQ ------------------------------------------------------------------------------------------


@for_each("shape", SHAPES, ids=str)
@for_each("scheme", ["symmetric", "asymmetric"])
@for_each("size", [0, 32, 100])
def test_awq_is_stored_as_planned_and_loses_less_than_rounding(shape, scheme, size):
    config, weight, seen = (
        AWQ(bits=3, group_size=size, scheme=scheme),
        weight_of(shape),
        seen_of(rows_of(shape[1])),
    )
    scales, searched = input_scales(config, Fold("", ()), [weight], seen)
    stored = compress(config, weight * scales, seen.divided_by(scales))
    assert (
        storage_plan(config, shape).nbytes == stored.nbytes
        and storage_plan(config, shape).settings() == stored.settings()
    )
    plain = output_loss(compress(config.rounding(), weight), weight, seen)
    assert searched[0] == (0.0, pytest.approx(plain, rel=1e-3))
    assert output_error(stored.to_dense() / scales - weight, seen) < plain


def test_the_scales_follow_the_strength_of_the_inputs():
    seen = seen_of(rows_of(172))
    scales, searched = input_scales(AWQ(bits=3), Fold("", ()), [weight_of((24, 172))], seen)
    order = seen.abs_mean.argsort()
    assert (scales[order].diff() >= -1e-6).all() and scales.max() > scales.min()
    assert min(error for _, error in searched) < searched[0][1] and len(searched) == AWQ().steps


def test_scales_of_repeated_heads_are_equal():
    fold = Fold("v", ("o",), repeats=2, head=3)
    tied = fold.repeated_scales(torch.arange(1.0, 13)).view(2, 2, 3)
    assert torch.equal(tied[:, 0], tied[:, 1]) and torch.equal(
        fold.source_scales(tied.flatten()), tied[:, 0].flatten()
    )
    torch.testing.assert_close(
        tied[0, 0], (torch.tensor([1.0, 2, 3]) * torch.tensor([4.0, 5, 6])).sqrt()
    )
