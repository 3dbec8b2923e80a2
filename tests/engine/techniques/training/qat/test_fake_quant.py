"""Weights that are rounded while they are trained are what is stored in the end."""

import math

import pytest
import torch

from engine.techniques.implementations import compress
from engine.techniques.quantization.fixed_levels.config import Ternary
from engine.techniques.quantization.rounding.config import RoundToNearest
from engine.techniques.training.qat.config import QAT, BitNet
from engine.techniques.training.qat.fake_quant import (
    GridFakeQuant,
    TableFakeQuant,
)
from engine.techniques.training.straight_through import (
    CLIP_TOLERANCE,
    quantize_module_inputs,
)
from tests.cases import for_each
from tests.techniques import BLOCKS, FIXED_POINT, NARROW, RANGES, ROUNDING, TERNARY, technique_id

GRIDS = [*ROUNDING, *RANGES, *NARROW, *BLOCKS, *FIXED_POINT]
LEARNABLE = [config for config in GRIDS if config.scales == "free"]


def layer(out: int = 24, in_: int = 41, seed: int = 0) -> torch.nn.Linear:
    module = torch.nn.Linear(in_, out, bias=False)
    module.weight.data = torch.randn(out, in_, generator=torch.Generator().manual_seed(seed))
    return module


def learning(config: RoundToNearest, **options) -> QAT:
    return QAT(**config.model_dump(exclude={"technique"}), **options)


@pytest.mark.parametrize("granularity", ["tensor", "channel", "group"])
def test_learned_steps_have_lsqs_slope_and_its_scale(granularity):
    """The multiples' gradient is the first step times equation 3 times 1 / sqrt(N Q_P), N weights
    sharing a step.
    """
    config, module = (
        QAT(bits=3, granularity=granularity, group_size=16, learn_scales=True, range="mse"),
        layer(8, 48),
    )
    rounded = GridFakeQuant(config, module, None)
    slope = torch.randn(8, 48, generator=torch.Generator().manual_seed(3))
    rounded(module.weight).backward(slope)
    shape = {"tensor": (1, 1, 384), "channel": (8, 1, 48), "group": (8, 3, 16)}[granularity]
    first = rounded.first[..., None]
    place = module.weight.detach().reshape(shape) / first
    equation3 = torch.where(place <= -4, -4.0, torch.where(place >= 3, 3.0, place.round() - place))
    due = (equation3 * slope.reshape(shape) * first).sum(-1) / math.sqrt(shape[2] * 3)
    torch.testing.assert_close(rounded.multiples.grad.view_as(due), due, rtol=1e-4, atol=1e-6)


@for_each("config", GRIDS, ids=technique_id)
def test_before_it_learns_a_weight_is_rounded_to_nearest_to_the_bit(config):
    module = layer()
    plain = compress(config, module.weight.detach())
    rounded = GridFakeQuant(learning(config), module, None)
    stored = rounded.stored_weight(module.weight)
    assert torch.equal(rounded(module.weight), plain.to_dense()) and torch.equal(
        stored.to_dense(), plain.to_dense()
    )
    assert {name: (value.dtype, value.shape) for name, value in stored.tensors().items()} == {
        name: (value.dtype, value.shape) for name, value in plain.tensors().items()
    }


@for_each("config", LEARNABLE, ids=technique_id)
def test_the_stored_weights_are_the_trained_ones_also_with_learned_steps(config):
    module = layer()
    rounded = GridFakeQuant(learning(config, learn_scales=True), module, None)
    with torch.no_grad():
        assert torch.equal(rounded(module.weight), compress(config, module.weight).to_dense())
        rounded.multiples.mul_(torch.linspace(0.5, 1.7, len(rounded.multiples)))
        assert torch.equal(rounded(module.weight), rounded.stored_weight(module.weight).to_dense())
        assert rounded.stored_weight(module.weight).nbytes == compress(config, module.weight).nbytes


@for_each("config", TERNARY, ids=technique_id)
def test_three_values_in_training_are_those_that_are_stored(config):
    module = layer()
    rounded = TableFakeQuant(
        BitNet(**config.model_dump(exclude={"technique"}), activation_bits=0), module, None
    )
    assert torch.equal(rounded(module.weight), compress(config, module.weight.detach()).to_dense())
    assert torch.equal(rounded.stored_weight(module.weight).to_dense(), rounded(module.weight))
    rounded(module.weight).sum().backward()
    # equation 1's rounding passes every gradient
    assert torch.equal(module.weight.grad, torch.ones(24, 41))


def test_nothing_is_clipped_where_the_grid_reaches_the_widest_weight():
    for bits in (2, 3, 8):
        module = layer()
        GridFakeQuant(QAT(bits=bits), module, None)(module.weight).sum().backward()
        assert torch.equal(module.weight.grad, torch.ones(24, 41)) and CLIP_TOLERANCE < 1
    module = layer()
    GridFakeQuant(QAT(bits=3, range="percentile", percentile=60), module, None)(
        module.weight
    ).sum().backward()
    assert 0.05 < (module.weight.grad == 0).float().mean() < 0.5


@for_each(
    "config",
    [
        QAT(scheme="asymmetric"),
        QAT(learn_scales=True),
        BitNet(activation_bits=0),
        BitNet(values="binary", activation_bits=0),
    ],
)
def test_zeros_stay_zero_and_do_not_learn(config):
    module = layer()
    left = module.weight.abs() > 0.7
    module.weight.data *= left
    kind = GridFakeQuant if isinstance(config, QAT) else TableFakeQuant
    rounded = kind(config, module, left)
    rounded(module.weight).square().sum().backward()
    assert (
        not rounded(module.weight)[~left].any()
        and not module.weight.grad[~left].any()
        and module.weight.grad[left].any()
    )
    assert torch.equal(rounded.stored_weight(module.weight).to_dense(), rounded(module.weight))


def test_the_distance_to_levels_is_in_steps_and_nothing_on_the_levels():
    module = layer()
    config = QAT(
        bits=4, granularity="channel", grid="narrow"
    )  # on which the widest weight is a level
    rounded = GridFakeQuant(config, module, None)
    scales, _ = rounded.qparams(module.weight)
    far = ((module.weight - rounded(module.weight)) / scales).square().mean()
    torch.testing.assert_close(rounded.quantization_error(module.weight), far)
    module.weight.data = compress(
        RoundToNearest(bits=4, granularity="channel", grid="narrow"), module.weight.detach()
    ).to_dense()
    assert rounded.quantization_error(module.weight) < 1e-9 < far


def test_inputs_are_rounded_as_the_stored_layer_rounds_them_and_slopes_pass():
    module, inputs = layer(5, 7), torch.randn(3, 7, requires_grad=True)
    stored = compress(BitNet(), module.weight.detach())
    plain = module(stored.quantized_inputs(inputs.detach()))
    quantize_module_inputs(module, stored.quantized_inputs)
    out = module(inputs)
    assert torch.equal(out, plain) and not torch.equal(stored.quantized_inputs(inputs), inputs)
    out.sum().backward()
    torch.testing.assert_close(inputs.grad, module.weight.detach().sum(0).expand(3, 7))


def test_bitnets_activations_are_absmax_to_eight_bits_for_each_token():
    tokens = torch.tensor([[1.0, -2.0, 0.5], [100.0, 3.0, -7.0]])
    scale = tokens.abs().amax(1, keepdim=True) / 127
    due = (tokens / scale).round() * scale
    torch.testing.assert_close(compress(BitNet(), torch.randn(4, 3)).quantized_inputs(tokens), due)
    assert compress(Ternary(), torch.randn(4, 3)).quantized_inputs(tokens) is tokens
