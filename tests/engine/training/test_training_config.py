import pytest

from engine.training import (
    TrainingConfig,
)


def test_the_rate_rises_then_falls_to_nothing():
    config = TrainingConfig(steps=100, rate=0.1, batch=4)
    rates = [config.rate_at(step) for step in range(101)]
    assert (
        rates[0] < rates[2] < rates[4] == max(rates)
        and rates[5:] == sorted(rates[5:], reverse=True)
        and rates[100] == pytest.approx(0)
    )
