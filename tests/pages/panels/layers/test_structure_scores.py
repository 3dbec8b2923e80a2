from pages.panels.layers.structure_scores import MAX_SCORE_BARS, STRUCTURE_SCORES, structure_scores
from tests.cases import for_each
from tests.pages.panels import tables


@for_each("number", [6, MAX_SCORE_BARS, MAX_SCORE_BARS + 1, 5000])
def test_every_structure_is_counted_once_on_the_side_it_is_on(number):
    rows = tables.structures(number=number, blocks=1)
    gone, left = structure_scores(rows).data
    counts = [len(gone.x), len(left.x)] if number <= MAX_SCORE_BARS else [sum(gone.y), sum(left.y)]
    assert counts == [(~rows.kept).sum(), rows.kept.sum()] and (gone.name, left.name) == (
        "Removed",
        "Kept",
    )
    assert len(gone.x) <= MAX_SCORE_BARS


def test_blocks_are_drawn_by_their_influence():
    figure = structure_scores(tables.influences())
    assert figure.layout.yaxis.title.text.startswith("Influence") and list(figure.data[0].x) == [1]
    assert (
        STRUCTURE_SCORES.describe(tables.influences())
        == "1 of 4 blocks were removed; the highest score among them is 0.1."
    )
