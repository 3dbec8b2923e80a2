"""Even grids: what rounding may and may not do."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.ao.quantization import PerChannelMinMaxObserver

from engine.models.layers import Layer
from engine.techniques.implementations import plan
from engine.techniques.quantization import grid
from engine.techniques.quantization.grid import round_to_grid
from engine.techniques.quantization.rounding.config import RoundToNearest
from engine.tensors.packing import unpack_bits
from tests.cases import for_each
from tests.matrices import weights
from tests.techniques import NARROW, RANGES, ROUNDING, technique_id

few = settings(max_examples=20)  # where there are many settings to try
HALF = 2**-11  # what rounding to float16 may change, as a share
PLAIN = [*ROUNDING, *NARROW]  # ranges that clip nothing


def to_widest(**config) -> RoundToNearest:
    """A grid that reaches to the widest weight, unless another range is asked for."""
    return RoundToNearest(**{"range": "absmax"} | config)


def rounded_weight(weight, **config):
    return round_to_grid(weight, to_widest(**config)).to_dense()


def steps(stored) -> torch.Tensor:
    """Each weight's own step.  (out, in_)"""
    scales = stored.scales.float()
    spread = (
        scales
        if scales.shape[1] == 1
        else scales.repeat_interleave(stored.group_size, 1)[:, : stored.shape[1]]
    )
    return spread.expand(stored.shape)


def relative(result, weight) -> float:
    return ((result - weight).norm() / weight.norm()).item()


def group_errors(weight, stored) -> torch.Tensor:
    """Squared error of each group."""
    missed = (stored.to_dense() - weight).square()
    return torch.stack([part.sum(1) for part in missed.split(stored.group_size, dim=1)], 1)


# --- what always holds ----------------------------------------------------------------------------


@for_each("config", PLAIN, ids=technique_id)
@few
@given(weights())
def test_no_weight_is_off_by_more_than_half_a_step(config, weight):
    stored = round_to_grid(weight, config)
    # a scale rounded down in float16 leaves the ends of the range out by so much
    half = 0.5 + HALF * 2**config.bits
    assert ((stored.to_dense() - weight).abs() <= half * steps(stored) + 1e-6 * weight.abs()).all()


@for_each("config", [*PLAIN, *RANGES], ids=technique_id)
@few
@given(weights())
def test_zero_stays_zero_and_no_weight_changes_its_sign(config, weight):
    result = round_to_grid(weight, config).to_dense()
    assert result.isfinite().all() and (result[weight == 0] == 0).all()
    assert (result * weight >= 0).all()


@for_each(
    "config",
    [config for config in [*PLAIN, *RANGES] if config.granularity != "tensor"],
    ids=technique_id,
)
@few
@given(weights())
def test_a_row_and_a_matrix_of_it_are_rounded_alike(config, weight):
    assert torch.equal(
        round_to_grid(weight, config).to_dense()[-1:], round_to_grid(weight[-1:], config).to_dense()
    )


@for_each("config", PLAIN, ids=technique_id)
@few
@given(weights())
def test_rounding_again_with_the_same_scales_changes_nothing(config, weight):
    once = round_to_grid(weight, config)
    twice = round_to_grid(once.to_dense(), config)
    same = steps(once) == steps(twice)
    torch.testing.assert_close(twice.to_dense()[same], once.to_dense()[same], rtol=1e-6, atol=0)


@given(weights(), st.integers(2, 8))
def test_codes_use_no_more_than_their_bits_and_the_narrow_grid_not_the_lowest(weight, bits):
    for levels in ("full", "narrow"):
        stored = round_to_grid(weight, to_widest(bits=bits, grid=levels))
        codes = unpack_bits(stored.codes, bits, weight.numel())
        assert (levels == "narrow") <= codes.min().item() <= codes.max().item() <= 2**bits - 1


@given(weights(), st.integers(2, 8))
def test_dense_in_any_precision_is_the_float32_weight_rounded_once(weight, bits):
    stored = round_to_grid(weight, to_widest(bits=bits, scheme="asymmetric"))
    for dtype in (torch.float16, torch.bfloat16):
        assert torch.equal(stored.to_dense(dtype), stored.to_dense().to(dtype))


# --- scales ---------------------------------------------------------------------------------------


@given(weights(), st.integers(2, 8))
def test_a_symmetric_scale_is_the_widest_weight_over_the_levels(weight, bits):
    widest = weight.abs().amax(1, keepdim=True)
    for levels, reach in (("full", 2 ** (bits - 1) - 0.5), ("narrow", 2 ** (bits - 1) - 1)):
        config = to_widest(bits=bits, granularity="channel", grid=levels)
        scales = round_to_grid(weight, config).scales.float()
        torch.testing.assert_close(
            scales, torch.where(widest > 0, widest / reach, 1.0), rtol=2 * HALF, atol=0
        )


@given(st.integers(0, 10_000), st.integers(2, 8))
def test_a_negative_widest_weight_takes_the_lowest_level_whatever_its_size(seed, bits):
    """It lies between the two lowest levels, and which of them is nearer must not depend on how its
    scale was rounded.
    """
    weight = torch.randn(16, 32, generator=torch.Generator().manual_seed(seed))
    weight[:, 5] = -1.5 * weight.abs().amax(1)
    stored = round_to_grid(weight, to_widest(bits=bits))
    assert (unpack_bits(stored.codes, bits, weight.numel()).view(weight.shape)[:, 5] == 0).all()


@given(st.integers(0, 1000), st.integers(2, 8))
def test_a_symmetric_scale_is_the_next_float16_below(seed, bits):
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(seed))
    exact = weight.abs().amax(1, keepdim=True).numpy() / np.float32(2 ** (bits - 1) - 0.5)
    below = exact.astype(np.float16)
    below = np.where(below.astype(np.float32) > exact, np.nextafter(below, np.float16(0)), below)
    scales = round_to_grid(weight, to_widest(bits=bits, granularity="channel")).scales
    assert scales.dtype == torch.float16 and np.array_equal(scales.numpy(), below)


@pytest.mark.parametrize("bits", [2, 3])
def test_float16_scales_choose_the_codes_of_exact_ones(bits, monkeypatch):
    weight, reach = (
        torch.randn(256, 512, generator=torch.Generator().manual_seed(bits)),
        2 ** (bits - 1) - 0.5,
    )
    groups = weight.double().unflatten(1, (-1, 32))
    exact = (
        (groups * reach / groups.abs().amax(-1, keepdim=True))
        .round()
        .clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    )
    config = to_widest(bits=bits, group_size=32)
    ours = round_to_grid(weight, config)
    with monkeypatch.context() as patch:
        patch.setattr(grid, "float16_below", grid.nearest_float16)
        nearest = round_to_grid(weight, config)
    ours_differ, nearest_differ = (share_unlike(each, exact, bits) for each in (ours, nearest))
    # in half of the groups the widest of 32 weights is negative, and half of these tipped over with
    # the nearest scale
    assert ours_differ < 0.001 < 0.006 < nearest_differ < 0.01 and ours.nbytes == nearest.nbytes


def share_unlike(stored, codes, bits: int) -> float:
    """Share of the weights whose code is another."""
    stored_codes = unpack_bits(stored.codes, bits, codes.numel()).view(
        codes.shape
    ).double() - 2 ** (bits - 1)
    return (stored_codes != codes).double().mean().item()


@given(weights(), st.integers(2, 8))
def test_an_asymmetric_grid_covers_both_ends(weight, bits):
    stored = round_to_grid(weight, to_widest(bits=bits, granularity="channel", scheme="asymmetric"))
    scale, zero = stored.scales.float(), stored.zero_codes().float()
    reach = 0.5 + HALF * 2**bits + 1e-3
    assert ((2**bits - 1 - zero + reach) * scale >= weight.amax(1, keepdim=True)).all()
    assert ((-zero - reach) * scale <= weight.amin(1, keepdim=True)).all()


@pytest.mark.parametrize(
    ("size", "stored_in"), [(1.0, torch.float16), (1e-9, torch.float32), (1e6, torch.float32)]
)
def test_scales_that_float16_cannot_hold_are_stored_in_float32(size, stored_in):
    weight = torch.randn(6, 64) * size
    stored = round_to_grid(weight, to_widest(bits=2))
    assert stored.scales.dtype == stored_in
    assert relative(stored.to_dense(), weight) == pytest.approx(
        relative(rounded_weight(weight / size, bits=2), weight / size), rel=0.01
    )


# --- granularity ----------------------------------------------------------------------------------

CLIPPED = [
    to_widest(bits=bits, scheme=s, range=r)
    for bits in (2, 4)
    for s in ("symmetric", "asymmetric")
    for r in ("absmax", "mse")
]


@for_each("config", CLIPPED, ids=technique_id)
@few
@given(weights())
def test_the_short_last_group_is_rounded_like_a_matrix_of_its_own(config, weight):
    edge = weight.shape[1] // 32 * 32
    if 0 < edge < weight.shape[1]:
        whole, tail = (
            round_to_grid(weight, config).to_dense().split([edge, weight.shape[1] - edge], dim=1)
        )
        assert torch.equal(tail, round_to_grid(weight[:, edge:].contiguous(), config).to_dense())
        assert torch.equal(whole, round_to_grid(weight[:, :edge].contiguous(), config).to_dense())


@given(weights(), st.sampled_from(["symmetric", "asymmetric"]))
def test_a_group_as_wide_as_a_row_is_a_channel(weight, scheme):
    channel = rounded_weight(weight, granularity="channel", scheme=scheme)
    for size in (weight.shape[1], weight.shape[1] + 1, 65536):
        assert torch.equal(rounded_weight(weight, group_size=size, scheme=scheme), channel)


@given(weights(), st.sampled_from(["symmetric", "asymmetric"]))
def test_a_tensor_has_one_scale_and_is_one_long_row(weight, scheme):
    config = to_widest(granularity="tensor", scheme=scheme)
    stored = round_to_grid(weight, config)
    assert stored.scales.numel() == 1
    assert torch.equal(
        stored.to_dense().flatten(),
        rounded_weight(weight.reshape(1, -1), granularity="channel", scheme=scheme).flatten(),
    )


# --- ranges ---------------------------------------------------------------------------------------


@given(
    weights(),
    st.sampled_from(["symmetric", "asymmetric"]),
    st.sampled_from(["tensor", "channel", "group"]),
)
def test_all_of_the_weights_are_inside_the_hundredth_percentile(weight, scheme, granularity):
    config = {"scheme": scheme, "granularity": granularity}
    assert torch.equal(
        rounded_weight(weight, range="percentile", percentile=100, **config),
        rounded_weight(weight, **config),
    )


@given(weights(), st.integers(2, 8), st.sampled_from(["symmetric", "asymmetric"]))
def test_least_squares_never_loses_more_than_the_widest_range(weight, bits, scheme):
    best, widest = (
        round_to_grid(weight, to_widest(bits=bits, scheme=scheme, range=reach))
        for reach in ("mse", "absmax")
    )
    assert (group_errors(weight, best) <= group_errors(weight, widest) * (1 + 1e-4)).all()


def test_least_squares_loses_clearly_less_where_there_are_few_levels():
    weight = torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
    best, widest = (
        group_errors(
            weight, round_to_grid(weight, to_widest(bits=2, group_size=256, range=r))
        ).sum()
        for r in ("mse", "absmax")
    )
    assert best < 0.7 * widest


def test_a_percentile_clips_the_rest_to_the_end_of_the_grid():
    weight = torch.linspace(-1, 1, 1001)[None]
    result = rounded_weight(
        weight, bits=8, granularity="channel", range="percentile", percentile=50
    )
    assert result.max().item() == pytest.approx(
        0.5, rel=0.01
    ) and result.min().item() == pytest.approx(-0.5, rel=0.01)


@pytest.mark.parametrize("scheme", ["symmetric", "asymmetric"])
def test_a_percentile_that_is_zero_clips_nothing(scheme):
    weight = torch.zeros(1, 32)
    weight[0, 3] = 0.3
    result = rounded_weight(weight, range="percentile", percentile=50, scheme=scheme)
    assert torch.equal(result, rounded_weight(weight, scheme=scheme)) and result[
        0, 3
    ].item() == pytest.approx(0.3, rel=0.1)


@given(
    weights(), st.sampled_from(["symmetric", "asymmetric"]), st.sampled_from([0.5, 1.0, 2.0, 20.0])
)
def test_a_multiple_of_the_rms_is_the_range_up_to_the_widest_weight(weight, scheme, multiple):
    reach = multiple * weight.square().mean(1, keepdim=True).sqrt()
    clipped = weight.clamp(-reach, reach)
    config = {"granularity": "channel", "scheme": scheme}
    same = round_to_grid(weight, to_widest(range="rms", rms_multiple=multiple, **config))
    torch.testing.assert_close(
        same.scales.float(),
        round_to_grid(clipped, to_widest(**config)).scales.float(),
        rtol=2 * HALF,
        atol=0,
    )


@pytest.mark.parametrize("scheme", ["symmetric", "asymmetric"])
def test_entropy_saturates_where_a_few_weights_stand_apart(scheme):
    weight = torch.randn(2, 4096, generator=torch.Generator().manual_seed(0))
    weight[:, 7] = 100.0
    config = {"granularity": "channel", "scheme": scheme}
    widest, saturated = (
        round_to_grid(weight, to_widest(range=reach, **config)) for reach in ("absmax", "entropy")
    )
    assert (saturated.scales < widest.scales / 2).all() and saturated.to_dense().max() < 60


@given(weights(), st.sampled_from(["symmetric", "asymmetric"]))
def test_groups_too_small_for_a_histogram_keep_their_widest_weight(weight, scheme):
    for config in ({"bits": 4}, {"bits": 8, "granularity": "channel"}):
        assert torch.equal(
            rounded_weight(weight, range="entropy", scheme=scheme, **config),
            rounded_weight(weight, scheme=scheme, **config),
        )


# --- blocks and input channels --------------------------------------------------------------------


def in_block(weight, rows, columns, **config):
    return round_to_grid(
        weight, to_widest(granularity="block", block_rows=rows, block_columns=columns, **config)
    )


@given(weights(), st.sampled_from(["symmetric", "asymmetric"]), st.sampled_from([1, 3, 32]))
def test_blocks_of_one_row_are_groups(weight, scheme, columns):
    assert torch.equal(
        in_block(weight, 1, columns, scheme=scheme).to_dense(),
        rounded_weight(weight, group_size=columns, scheme=scheme),
    )


@given(weights(), st.sampled_from(["symmetric", "asymmetric"]))
def test_a_block_of_everything_is_the_tensor_and_one_column_an_input_channel(weight, scheme):
    assert torch.equal(
        in_block(weight, 65536, 65536, scheme=scheme).to_dense(),
        rounded_weight(weight, granularity="tensor", scheme=scheme),
    )
    by_column = rounded_weight(weight, granularity="input-channel", scheme=scheme)
    assert torch.equal(in_block(weight, 65536, 1, scheme=scheme).to_dense(), by_column)
    assert torch.equal(
        by_column, rounded_weight(weight.T.contiguous(), granularity="channel", scheme=scheme).T
    )


@settings(max_examples=25)  # each rounds a weight block by block
@given(weights(), st.integers(1, 8), st.integers(1, 70), st.sampled_from(["absmax", "mse", "rms"]))
def test_each_block_is_rounded_like_a_matrix_of_its_own(weight, rows, columns, reach):
    stored = in_block(weight, rows, columns, range=reach)
    bands = [
        [
            rounded_weight(block.contiguous(), granularity="tensor", range=reach)
            for block in band.split(columns, 1)
        ]
        for band in weight.split(rows)
    ]
    # a least-squares range between two equally good ones may fall either way
    due = torch.cat([torch.cat(band, 1) for band in bands])
    torch.testing.assert_close(
        stored.to_dense(),
        due,
        rtol=1e-6,
        atol=(0.02 if reach == "mse" else 1e-6) * weight.abs().max().item(),
    )
    assert stored.scales.shape == (-(-len(weight) // rows), -(-weight.shape[1] // columns))


def test_a_convolutions_input_channel_comes_with_its_whole_kernel():
    layer = Layer("conv", "conv2d", (6, 4, 3, 3), 4, "")
    channel = plan(to_widest(granularity="input-channel"), [layer])["conv"]
    block = plan(to_widest(granularity="block", block_rows=2, block_columns=3), [layer])["conv"]
    weight = torch.randn(6, 36, generator=torch.Generator().manual_seed(0))
    assert round_to_grid(weight, channel).scales.shape == (1, 4) and round_to_grid(
        weight, block
    ).scales.shape == (3, 2)
    turned = weight.view(6, 4, 9).transpose(0, 1).reshape(4, 54)
    due = rounded_weight(turned, granularity="channel").view(4, 6, 9).transpose(0, 1).reshape(6, 36)
    assert torch.equal(round_to_grid(weight, channel).to_dense(), due)


# --- fixed point ----------------------------------------------------------------------------------


@given(weights(), st.integers(2, 8), st.sampled_from(["symmetric", "asymmetric"]))
def test_fixed_point_scales_are_the_next_power_of_two_in_one_byte(weight, bits, scheme):
    free, fixed = (
        round_to_grid(weight, to_widest(bits=bits, scheme=scheme, scales=scales))
        for scales in ("free", "power-of-two")
    )
    scales = fixed.scales.float()
    assert fixed.scales.itemsize == 1 and (scales.frexp().mantissa == 0.5).all()
    apart = scales / free.scales.float()
    assert ((apart >= 1 - HALF * 2) & (apart < 2 + HALF * 4)).all()


@few
@given(weights(), st.integers(2, 8))
def test_fixed_point_is_off_by_at_most_half_a_step(weight, bits):
    stored = round_to_grid(weight, to_widest(bits=bits, scales="power-of-two"))
    assert ((stored.to_dense() - weight).abs() <= 0.5 * steps(stored) * (1 + 1e-6)).all()


# --- against torch's own --------------------------------------------------------------------------


@for_each("bits", [2, 3, 4, 8])
@for_each("scheme", ["symmetric", "asymmetric"])
def test_torch_rounds_to_the_same_weights_with_the_same_scales(bits, scheme):
    weight = torch.randn(33, 352)
    stored = round_to_grid(weight, to_widest(bits=bits, granularity="channel", scheme=scheme))
    scale, zero = stored.scales.flatten().float(), stored.zero_codes().flatten().int()
    reference = torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, 0, 2**bits - 1)
    torch.testing.assert_close(stored.to_dense(), reference, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_torchs_observer_chooses_the_same_range(bits):
    weight = torch.randn(33, 352) + 0.3
    observer = PerChannelMinMaxObserver(
        dtype=torch.quint8, quant_min=0, quant_max=2**bits - 1, qscheme=torch.per_channel_affine
    )
    observer(weight)
    scale, zero = observer.calculate_qparams()
    stored = round_to_grid(weight, to_widest(bits=bits, granularity="channel", scheme="asymmetric"))
    torch.testing.assert_close(stored.scales.flatten().float(), scale, rtol=2 * HALF, atol=0)
    # one where float16 moved the scale past a half
    assert (stored.zero_codes().flatten().int() - zero).abs().max() <= (bits == 8)
