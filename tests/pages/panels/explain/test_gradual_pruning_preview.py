import pytest

from engine.techniques.pruning.gradual.config import Gradual
from engine.techniques.pruning.gradual.preview import pruning_steps_preview
from pages.panels.explain.gradual_pruning_preview import (
    GRADUAL_PRUNING_PREVIEW,
    gradual_pruning_preview,
)
from pages.panels.theme import COMPRESSED


@pytest.mark.parametrize("schedule", ["one-shot", "iterative", "cubic"])
def test_the_chosen_schedule_alone_is_colored_and_drawn_last(schedule):
    figure = gradual_pruning_preview(pruning_steps_preview(Gradual(schedule=schedule)))
    *others, chosen = figure.data
    assert chosen.name == f"{schedule.capitalize()} (chosen)" and chosen.mode == "lines+markers"
    assert chosen.line.color == COMPRESSED and len(others) == 2
    assert all(line.line.color != COMPRESSED and line.mode == "lines" for line in others)
    assert len({line.line.dash for line in figure.data}) == 3


def test_the_description_goes_to_the_sparsity_that_was_asked_for():
    cuts = pruning_steps_preview(Gradual(sparsity=0.75, schedule="cubic"))
    said = GRADUAL_PRUNING_PREVIEW.describe(cuts)
    assert said.startswith("Cubic: ") and said.endswith("to 75.0% zero weights.")
