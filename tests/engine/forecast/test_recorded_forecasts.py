"""Forecasts at fixed throughputs equal the recorded ones."""

import json

import pytest

from tests.forecasts import GOLDEN, forecasts, workloads


def test_forecasts_of_every_technique_equal_the_recorded_ones(tmp_path):
    recorded, now = json.loads(GOLDEN.read_text()), forecasts(tmp_path) | workloads()
    assert now.keys() == recorded.keys()
    wrong = {name: now[name] for name in now if now[name] != pytest.approx(recorded[name])}
    assert not wrong
