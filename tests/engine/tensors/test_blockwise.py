"""The formats of bitsandbytes as stored weights."""

import pytest
import torch
from scipy.stats import norm

from engine.tensors.blockwise import FP4, NF4, FourBit, RowInt8


def test_nf4_levels_are_quantiles_of_the_normal_distribution():
    """Half of the levels on each side of an exact zero (QLoRA, appendix E)."""
    offset = 0.9677083
    above = norm.ppf([offset + (0.5 - offset) * i / 8 for i in range(8)])
    below = -norm.ppf([offset + (0.5 - offset) * i / 7 for i in range(7)])
    levels = sorted([*above, *below, 0.0])
    assert pytest.approx([level / levels[-1] for level in levels], abs=1e-6) == NF4


def test_fp4_levels_are_symmetric_and_reach_one():
    assert sorted(FP4) == pytest.approx(sorted(-value for value in FP4)) and max(FP4) == 1


@pytest.mark.parametrize("shape", [(4, 16), (3, 7), (1, 1)])
def test_each_block_is_scaled_by_its_own_absmax_also_a_shorter_last_one(shape):
    count = shape[0] * shape[1]
    codes = torch.arange(count) % 16
    padded = torch.cat([codes, torch.zeros(count % 2, dtype=torch.int64)]).view(-1, 2)
    absmax = torch.arange(1.0, 1 + -(-count // 8))
    stored = FourBit(shape, "nf4", 8, (padded[:, 0] * 16 + padded[:, 1]).to(torch.uint8), absmax)
    due = torch.tensor(NF4)[codes] * absmax[torch.arange(count) // 8]
    assert torch.equal(stored.to_dense().flatten(), due)
    assert stored.level_counts().sum() == count


def test_int8_rows_have_their_absmax_at_code_127():
    codes = torch.tensor([[127, -127, 0], [127, 64, -1]], dtype=torch.int8)
    stored = RowInt8((2, 3), codes, torch.tensor([2.0, 0.5]))
    torch.testing.assert_close(
        stored.to_dense(), torch.tensor([[2.0, -2.0, 0.0], [0.5, 32 / 127, -0.5 / 127]])
    )
    assert stored.level_counts().sum() == 6 and stored.level_counts()[-1] == 2
