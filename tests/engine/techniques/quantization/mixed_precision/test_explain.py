from tests.answers import lesson


def test_more_bits_leave_less_error(questions):
    table = lesson(**questions("llama", "mixed-precision")).table
    assert (
        table.relative_error.is_monotonic_decreasing
        and table.bits_per_weight.is_monotonic_increasing
    )
    assert set(table.bits[table.allowed]) == {2, 3, 4, 8}
