"""HQQ against the package's results."""

import torch

from engine.techniques.implementations import compress
from engine.techniques.quantization.grid import Levels
from engine.techniques.quantization.hqq.config import HQQ
from engine.techniques.quantization.hqq.method import fractional_codes
from tests.cases import for_each
from tests.goldens import codes_of, golden, share_equal


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
