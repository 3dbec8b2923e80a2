import pytest
import torch

from tests.answers import lesson
from tests.explained_steps import each_architecture, look_at_hand


@each_architecture
def test_the_scaled_column_is_the_one_behind_the_strongest_input(architecture, questions):
    question = questions(architecture, "awq")
    table, look = lesson(**question).table, look_at_hand(**question)
    column = table.column.iloc[0]
    assert look.stats.abs_mean[column] == look.stats.abs_mean.max() and table.factor.iloc[
        0
    ] == pytest.approx(look.scales[column].item())
    missed = (look.stored.to_dense() / look.scales - look.weight)[: len(table), column]
    torch.testing.assert_close(
        torch.tensor(table.error_with.to_numpy()), missed, rtol=1e-3, atol=1e-6
    )
