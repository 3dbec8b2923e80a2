from tests.answers import lesson


def test_outliers_are_those_stored_apart(questions):
    table = lesson(**questions("llama", "llm-int8")).table
    assert table.apart.equals(table.largest >= table.threshold)
