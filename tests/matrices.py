"""Matrices for properties of number formats."""

import torch
from hypothesis import strategies as st

from engine.techniques.implementations import compress


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


def normal(*shape, seed=0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def squared_error(config, weight) -> float:
    """Squared error."""
    return (compress(config, weight).to_dense() - weight).double().square().sum().item()
