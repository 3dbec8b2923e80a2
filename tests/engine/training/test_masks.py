"""Gates that learn which weights stay."""

import torch

from engine.training.masks import INITIAL_OPENNESS, HardConcreteGates


def test_gates_start_open_and_close_under_a_penalty():
    gates, weight = HardConcreteGates(torch.ones(40, 40)).eval(), torch.ones(40, 40)
    assert torch.equal(gates(weight), weight) and gates.expected_open().item() > 0.97 * 1600
    gates.train()
    assert (gates(weight) < 1).any() and gates(weight).min() >= 0
    gates.eval().openness.data.fill_(-INITIAL_OPENNESS)
    assert not gates(weight).any() and gates.expected_open().item() < 0.3 * 1600
