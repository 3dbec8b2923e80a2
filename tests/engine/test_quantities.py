"""Durations and sizes as people read them."""

import pytest

from engine.quantities import UNKNOWN, duration, megabytes


@pytest.mark.parametrize(
    "seconds, words",
    [
        (0.2, "0.2 s"),
        (0.97, "1 s"),
        (59.4, "59 s"),
        (61, "1 min 1 s"),
        (599, "9 min 59 s"),
        (1250, "20 min"),
        (3700, "1 h 1 min"),
        (float("nan"), UNKNOWN),
    ],
)
def test_durations_are_as_exact_as_a_person_needs(seconds, words):
    assert duration(seconds) == words


def test_sizes_have_one_to_three_digits_before_the_point():
    sizes = {1: "1 B", 999: "999 B", 1_000: "1.0 kB", 23_600_000: "23.6 MB", 104.4e9: "104 GB"}
    assert {size: megabytes(size) for size in sizes} == sizes
