"""Passes take turns within a budget of time."""

from engine.measurement.interleaved_timing import MAX_REPEATS, TimeBudget


def test_no_time_is_no_numbers_and_little_time_is_few_repetitions():
    assert TimeBudget(-1, 1).alternating_times({"a": lambda: None}) == {}
    times = TimeBudget(1000, 1).alternating_times({"a": lambda: None, "b": lambda: None})
    assert {name: len(each) for name, each in times.items()} == {
        "a": MAX_REPEATS,
        "b": MAX_REPEATS,
    }


def test_passes_take_turns():
    order = []
    TimeBudget(1000, 1).alternating_times(
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    )
    assert order == ["a", "b"] * (1 + MAX_REPEATS)
