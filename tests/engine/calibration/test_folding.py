import torch

from engine.calibration import Fold


def test_scales_of_repeated_heads_are_equal():
    fold = Fold("v", ("o",), repeats=2, head=3)
    tied = fold.repeated_scales(torch.arange(1.0, 13)).view(2, 2, 3)
    assert torch.equal(tied[:, 0], tied[:, 1]) and torch.equal(
        fold.source_scales(tied.flatten()), tied[:, 0].flatten()
    )
    torch.testing.assert_close(
        tied[0, 0], (torch.tensor([1.0, 2, 3]) * torch.tensor([4.0, 5, 6])).sqrt()
    )
