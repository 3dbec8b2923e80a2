"""Fixtures of tests of quantization."""

import pytest

from engine.techniques.quantization import grid


@pytest.fixture
def nearest_scales(monkeypatch):
    """The reference's scales are rounded to the nearest float16, also where ours are rounded
    down.
    """
    monkeypatch.setattr(grid, "float16_below", grid.nearest_float16)
