from tests.answers import lesson


def test_each_way_of_choosing_keeps_the_same_number_of_channels(questions):
    table = lesson(**questions("llama", "awq-salience")).table
    kept = table[["by_activations", "by_weights", "at_random"]].sum()
    assert (
        kept.nunique() == 1
        and table.activation[table.by_activations].min()
        >= table.activation[~table.by_activations].max()
    )
