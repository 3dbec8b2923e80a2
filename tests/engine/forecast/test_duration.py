"""Forecasts of seconds follow the work."""

import pytest

from engine import forecast as costs
from engine.forecast import duration as seconds

ROUNDING, GPTQ = {"technique": "round-to-nearest"}, {"technique": "gptq"}


def test_what_a_technique_does_beyond_rounding_costs_time(step_forecast):
    plain = step_forecast(ROUNDING).seconds
    assert all(
        step_forecast({"technique": name}).seconds > plain
        for name in ("gptq", "awq", "activations", "mixed-precision", "awq-salience")
    )


def test_a_known_baseline_is_not_measured_again(step_forecast, monkeypatch):
    new = step_forecast(ROUNDING).seconds
    monkeypatch.setattr(costs, "is_baseline_cached", lambda *_: True)
    assert step_forecast(ROUNDING).seconds < new


def test_speed_is_forecast_only_where_it_is_asked_for(step_forecast):
    assert step_forecast(ROUNDING, speed=True).seconds > step_forecast(ROUNDING).seconds


@pytest.mark.parametrize("architecture", ["llama", "bert", "resnet"])
def test_the_look_at_student_and_teacher_side_by_side_is_counted(
    architecture, step_forecast, monkeypatch
):
    student, alone = (
        {"technique": technique, "steps": 1} for technique in ("distill", "fine-tune")
    )
    with_look = [step_forecast(step, architecture).seconds for step in (student, alone)]
    monkeypatch.setattr(seconds, "GROUPS", 0)
    without = [step_forecast(step, architecture).seconds for step in (student, alone)]
    assert with_look[0] > without[0] and with_look[1] == without[1]
