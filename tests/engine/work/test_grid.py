"""Even grids: what rounding may and may not do."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.ao.quantization import PerChannelMinMaxObserver

from engine.catalog.quantization import RoundToNearest
from engine.work.methods.quantization.grid import stored_grid
from engine.work.stored.packing import unpacked
from tests.techniques import NARROW, RANGES, ROUNDING, named

few = settings(max_examples=20)  # where there are many settings to try
HALF = 2**-11  # what rounding to float16 may change, as a share
PLAIN = [*ROUNDING, *NARROW]  # ranges that clip nothing


@st.composite
def weights(draw):
    """Ragged matrices of every size and scale; some are lopsided, constant or mostly zero."""
    shape = draw(st.sampled_from([(1, 1), (1, 5), (5, 1), (7, 13), (4, 40), (3, 64), (2, 172)]))
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 1000))))
    kind = draw(st.sampled_from(["normal", "lopsided", "constant", "sparse", "zero", "outlier"]))
    weight = {
        "normal": weight,
        "lopsided": weight.abs() + 0.5,
        "constant": torch.full(shape, -0.7),
        "sparse": weight * (weight > 1),
        "zero": weight * 0,
        "outlier": weight.where(weight < weight.max(), weight * 50),
    }[kind]
    return weight * draw(st.sampled_from([1.0, 0.02, 1e-9, 1e5]))


def rounded(weight, **how):
    return stored_grid(weight, RoundToNearest(**how)).dense()


def steps(stored) -> torch.Tensor:
    """Each weight's own step.  (out, in_)"""
    scales = stored.scales.float()
    spread = scales if scales.shape[1] == 1 else scales.repeat_interleave(stored.group_size, 1)[:, : stored.shape[1]]
    return spread.expand(stored.shape)


def relative(result, weight) -> float:
    return ((result - weight).norm() / weight.norm()).item()


def lost(weight, stored) -> torch.Tensor:
    """Squared error of each group."""
    missed = (stored.dense() - weight).square()
    return torch.stack([part.sum(1) for part in missed.split(stored.group_size, dim=1)], 1)


# --- what always holds --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", PLAIN, ids=named)
@few
@given(weights())
def test_no_weight_is_off_by_more_than_half_a_step(how, weight):
    stored = stored_grid(weight, how)
    # a scale rounded down in float16 leaves the ends of the range out by so much
    half = 0.5 + HALF * 2**how.bits
    assert ((stored.dense() - weight).abs() <= half * steps(stored) + 1e-6 * weight.abs()).all()


@pytest.mark.parametrize("how", [*PLAIN, *RANGES], ids=named)
@few
@given(weights())
def test_zero_stays_zero_and_no_weight_changes_its_sign(how, weight):
    result = stored_grid(weight, how).dense()
    assert result.isfinite().all() and (result[weight == 0] == 0).all()
    assert (result * weight >= 0).all()


@pytest.mark.parametrize("how", [*PLAIN, *RANGES], ids=named)
@few
@given(weights())
def test_a_row_and_a_matrix_of_it_are_rounded_alike(how, weight):
    if how.granularity != "tensor":
        assert torch.equal(stored_grid(weight, how).dense()[-1:], stored_grid(weight[-1:], how).dense())


@pytest.mark.parametrize("how", PLAIN, ids=named)
@few
@given(weights())
def test_rounding_again_with_the_same_scales_changes_nothing(how, weight):
    once = stored_grid(weight, how)
    twice = stored_grid(once.dense(), how)
    same = steps(once) == steps(twice)
    torch.testing.assert_close(twice.dense()[same], once.dense()[same], rtol=1e-6, atol=0)


@given(weights(), st.integers(2, 8))
def test_codes_use_no_more_than_their_bits_and_the_narrow_grid_not_the_lowest(weight, bits):
    for grid in ("full", "narrow"):
        stored = stored_grid(weight, RoundToNearest(bits=bits, grid=grid))
        codes = unpacked(stored.codes, bits, weight.numel())
        assert (grid == "narrow") <= codes.min().item() <= codes.max().item() <= 2**bits - 1


@given(weights(), st.integers(2, 8))
def test_dense_in_any_precision_is_the_float32_weight_rounded_once(weight, bits):
    stored = stored_grid(weight, RoundToNearest(bits=bits, scheme="asymmetric"))
    for dtype in (torch.float16, torch.bfloat16):
        assert torch.equal(stored.dense(dtype), stored.dense().to(dtype))


# --- scales -------------------------------------------------------------------------------------------------------------


@given(weights(), st.integers(2, 8))
def test_a_symmetric_scale_is_the_widest_weight_over_the_levels(weight, bits):
    widest = weight.abs().amax(1, keepdim=True)
    for grid, reach in (("full", 2 ** (bits - 1) - 0.5), ("narrow", 2 ** (bits - 1) - 1)):
        scales = stored_grid(weight, RoundToNearest(bits=bits, granularity="channel", grid=grid)).scales.float()
        torch.testing.assert_close(scales, torch.where(widest > 0, widest / reach, 1.0), rtol=2 * HALF, atol=0)


@given(weights(), st.integers(2, 8))
def test_an_asymmetric_grid_covers_both_ends(weight, bits):
    stored = stored_grid(weight, RoundToNearest(bits=bits, granularity="channel", scheme="asymmetric"))
    scale, zero = stored.scales.float(), stored.zero_codes().float()
    reach = 0.5 + HALF * 2**bits + 1e-3
    assert ((2**bits - 1 - zero + reach) * scale >= weight.amax(1, keepdim=True)).all()
    assert ((-zero - reach) * scale <= weight.amin(1, keepdim=True)).all()


@pytest.mark.parametrize(("size", "stored_in"), [(1.0, torch.float16), (1e-9, torch.float32), (1e6, torch.float32)])
def test_scales_that_float16_cannot_hold_are_stored_in_float32(size, stored_in):
    weight = torch.randn(6, 64) * size
    stored = stored_grid(weight, RoundToNearest(bits=2))
    assert stored.scales.dtype == stored_in
    assert relative(stored.dense(), weight) == pytest.approx(relative(rounded(weight / size, bits=2), weight / size), rel=0.01)


# --- granularity --------------------------------------------------------------------------------------------------------

CLIPPED = [RoundToNearest(bits=bits, scheme=s, range=r) for bits in (2, 4) for s in ("symmetric", "asymmetric") for r in ("absmax", "mse")]


@pytest.mark.parametrize("how", CLIPPED, ids=named)
@few
@given(weights())
def test_the_short_last_group_is_rounded_like_a_matrix_of_its_own(how, weight):
    edge = weight.shape[1] // 32 * 32
    if 0 < edge < weight.shape[1]:
        whole, tail = stored_grid(weight, how).dense().split([edge, weight.shape[1] - edge], dim=1)
        assert torch.equal(tail, stored_grid(weight[:, edge:].contiguous(), how).dense())
        assert torch.equal(whole, stored_grid(weight[:, :edge].contiguous(), how).dense())


@given(weights(), st.sampled_from(["symmetric", "asymmetric"]))
def test_a_group_as_wide_as_a_row_is_a_channel(weight, scheme):
    channel = rounded(weight, granularity="channel", scheme=scheme)
    for size in (weight.shape[1], weight.shape[1] + 1, 65536):
        assert torch.equal(rounded(weight, group_size=size, scheme=scheme), channel)


@given(weights(), st.sampled_from(["symmetric", "asymmetric"]))
def test_a_tensor_has_one_scale_and_is_one_long_row(weight, scheme):
    how = RoundToNearest(granularity="tensor", scheme=scheme)
    stored = stored_grid(weight, how)
    assert stored.scales.numel() == 1
    assert torch.equal(stored.dense().flatten(), rounded(weight.reshape(1, -1), granularity="channel", scheme=scheme).flatten())


# --- ranges -------------------------------------------------------------------------------------------------------------


@given(weights(), st.sampled_from(["symmetric", "asymmetric"]), st.sampled_from(["tensor", "channel", "group"]))
def test_all_of_the_weights_are_inside_the_hundredth_percentile(weight, scheme, granularity):
    how = {"scheme": scheme, "granularity": granularity}
    assert torch.equal(rounded(weight, range="percentile", percentile=100, **how), rounded(weight, **how))


@given(weights(), st.integers(2, 8), st.sampled_from(["symmetric", "asymmetric"]))
def test_least_squares_never_loses_more_than_the_widest_range(weight, bits, scheme):
    best, widest = (stored_grid(weight, RoundToNearest(bits=bits, scheme=scheme, range=reach)) for reach in ("mse", "absmax"))
    assert (lost(weight, best) <= lost(weight, widest) * (1 + 1e-4)).all()


def test_least_squares_loses_clearly_less_where_there_are_few_levels():
    weight = torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
    best, widest = (lost(weight, stored_grid(weight, RoundToNearest(bits=2, group_size=256, range=r))).sum() for r in ("mse", "absmax"))
    assert best < 0.7 * widest


def test_a_percentile_clips_the_rest_to_the_end_of_the_grid():
    weight = torch.linspace(-1, 1, 1001)[None]
    result = rounded(weight, bits=8, granularity="channel", range="percentile", percentile=50)
    assert result.max().item() == pytest.approx(0.5, rel=0.01) and result.min().item() == pytest.approx(-0.5, rel=0.01)


@pytest.mark.parametrize("scheme", ["symmetric", "asymmetric"])
def test_a_percentile_that_is_zero_clips_nothing(scheme):
    weight = torch.zeros(1, 32)
    weight[0, 3] = 0.3
    result = rounded(weight, range="percentile", percentile=50, scheme=scheme)
    assert torch.equal(result, rounded(weight, scheme=scheme)) and result[0, 3].item() == pytest.approx(0.3, rel=0.1)


# --- against torch's own ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("scheme", ["symmetric", "asymmetric"])
def test_torch_rounds_to_the_same_weights_with_the_same_scales(bits, scheme):
    weight = torch.randn(33, 352)
    stored = stored_grid(weight, RoundToNearest(bits=bits, granularity="channel", scheme=scheme))
    scale, zero = stored.scales.flatten().float(), stored.zero_codes().flatten().int()
    reference = torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, 0, 2**bits - 1)
    torch.testing.assert_close(stored.dense(), reference, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_torchs_observer_chooses_the_same_range(bits):
    weight = torch.randn(33, 352) + 0.3
    observer = PerChannelMinMaxObserver(dtype=torch.quint8, quant_min=0, quant_max=2**bits - 1, qscheme=torch.per_channel_affine)
    observer(weight)
    scale, zero = observer.calculate_qparams()
    stored = stored_grid(weight, RoundToNearest(bits=bits, granularity="channel", scheme="asymmetric"))
    torch.testing.assert_close(stored.scales.flatten().float(), scale, rtol=2 * HALF, atol=0)
    assert (stored.zero_codes().flatten().int() - zero).abs().max() <= (bits == 8)  # one where float16 moved the scale past a half
