"""Settings of a pruning step on its way, and masks that are updated."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import PlainError
from engine.techniques.pruning.gradual.magnitude_schedule import (
    at_share,
    config_for_remaining,
    update_masks,
)
from engine.techniques.pruning.masks import keep_mask
from engine.techniques.pruning.unstructured.config import Magnitude
from engine.training.masks import WeightMask
from tests.cases import for_each
from tests.matrices import normal


class Trainable:
    """Two layers that learn."""

    def __init__(self, regrow: bool = False):
        self.weights = {"a": normal(8, 16), "b": 3 * normal(8, 32, seed=1)}
        self.masks = {name: WeightMask(each, regrow) for name, each in self.weights.items()}
        self.layers = [
            SimpleNamespace(name=name, parameters=each.numel())
            for name, each in self.weights.items()
        ]

    def unmasked_weight(self, name: str) -> torch.Tensor:
        return self.weights[name]

    def mask(self, name: str) -> torch.Tensor:
        return self.masks[name].mask

    def set_mask(self, name: str, mask: torch.Tensor) -> None:
        self.masks[name].mask.copy_(mask)

    def zeros(self) -> dict[str, float]:
        return {name: 1 - each.mask.float().mean().item() for name, each in self.masks.items()}


@for_each("scope", ["row", "layer", "global"])
@for_each("share", [0.25, 0.5])
def test_the_share_is_removed_within_each_layer_or_among_all(scope, share):
    trainable = Trainable()
    update_masks(trainable, Magnitude(scope=scope), share)
    zeros = trainable.zeros()
    if scope == "global":
        assert (128 * zeros["a"] + 256 * zeros["b"]) / 384 == pytest.approx(share)
        assert zeros["a"] > zeros["b"], "weights of the other layer are larger"
    else:
        assert zeros == pytest.approx({"a": share, "b": share})


@pytest.mark.parametrize("regrow", [False, True])
def test_pruned_weights_regrow_only_if_allowed(regrow):
    trainable = Trainable(regrow)
    update_masks(trainable, Magnitude(scope="layer"), 0.5)
    before = trainable.mask("a").clone()
    trainable.weights["a"] = torch.where(before, 0.01, 5.0) * (1 + torch.rand(8, 16))
    update_masks(trainable, Magnitude(scope="layer"), 0.5)
    assert trainable.mask("a")[~before].all() == regrow
    assert regrow or torch.equal(trainable.mask("a"), before)


def test_a_layer_that_would_be_emptied_is_named():
    with pytest.raises(PlainError, match=r"^a would lose every weight at 100%"):
        update_masks(Trainable(), Magnitude(scope="layer"), 1.0)


@given(st.integers(2, 8), st.floats(0, 1))
def test_a_pattern_on_its_way_removes_the_nearest_whole_weights(of, progress):
    share = progress * (1 - 1 / of)
    config = at_share(Magnitude(pattern=f"1:{of}"), share)
    kept = of if config is None else int(config.pattern.split(":")[0])
    assert of - kept == round(share * of)
    assert config is None or (keep_mask(normal(4, 8 * of).abs(), config).sum() == 32 * kept)


def test_a_pattern_leaves_room_for_all_that_is_left():
    left = torch.zeros(2, 8)
    left[0, :3] = 1  # three of the first four
    config = Magnitude(pattern="2:4", storage="n-of-m")
    assert config_for_remaining(config, left).pattern == "3:4"
    assert config_for_remaining(config, 0 * left).pattern == "2:4"
    whole = config_for_remaining(config, torch.ones(2, 8))
    assert (whole.pattern, whole.storage) == ("", "dense")
    assert config_for_remaining(Magnitude(), left) == Magnitude()
