from pages.panels.layers.singular_values import SINGULAR_VALUES, singular_values
from pages.panels.theme import HIGHLIGHT
from tests.pages.panels import tables
from tests.pages.panels.traces import trace_named


def test_each_version_has_a_line_through_all_its_singular_values():
    singular = tables.singular()
    figure = singular_values(singular)
    assert [line.name for line in figure.data] == ["Weights", "Whitened"]
    plain = singular[singular.version == "plain"]
    assert list(trace_named(figure, "Weights").y) == list(plain.singular_value)
    assert figure.layout.yaxis.type == "log"


def test_the_cut_is_between_the_last_kept_value_and_the_first_dropped_one():
    [cut] = singular_values(tables.singular(rank=6)).layout.shapes
    assert cut.x0 == cut.x1 == 6.5 and cut.line.color == HIGHLIGHT


def test_the_rank_is_written_where_there_is_room():
    for rank, side in ((6, "left"), (20, "right")):
        [words] = singular_values(tables.singular(rank, 24)).layout.annotations
        assert words.text == f"rank {rank}" and words.xanchor == side


def test_the_description_counts_what_is_kept():
    said = SINGULAR_VALUES.describe(tables.singular(6, 24))
    assert said.startswith("24 singular values, 6 of them kept; weights: the last is 0.15 of")
