"""Device and precision of a recipe."""

import pytest
import torch

from engine.errors import PlainError
from engine.models.loaded_model import device_and_dtype
from engine.recipe import Recipe


@pytest.fixture
def usable(monkeypatch):
    """Set the devices that torch reports."""

    def among(*devices: str) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in devices)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in devices)

    return among


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_usable_is_refused_in_one_sentence(device, usable):
    usable()
    with pytest.raises(PlainError, match=rf"asks for device {device}.*set device to cpu or auto\."):
        device_and_dtype(Recipe(device=device))


def test_only_cuda_is_chosen_automatically(usable):
    usable("cuda", "mps")
    assert device_and_dtype(Recipe()) == (torch.device("cuda"), torch.bfloat16)
    assert device_and_dtype(Recipe(device="mps")) == (torch.device("mps"), torch.float32)
    assert device_and_dtype(Recipe(device="cpu")) == (torch.device("cpu"), torch.float32)
    usable("mps")
    assert device_and_dtype(Recipe()) == (torch.device("cpu"), torch.float32)
