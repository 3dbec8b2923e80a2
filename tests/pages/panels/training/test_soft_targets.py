from pages.panels.theme import HIGHLIGHT
from pages.panels.training.soft_targets import soft_targets
from tests.pages.panels import tables


def test_the_right_answer_alone_has_a_frame():
    traces = soft_targets(tables.soft_targets()).data
    assert traces
    for trace in traces:
        assert [color == HIGHLIGHT for color in trace.marker.line.color] == [False, True, False]


def test_a_temperature_evens_answers_out():
    plain, softened = soft_targets(tables.soft_targets(temperature=4.0)).data
    assert softened.x[0] < plain.x[0] and softened.x[2] > plain.x[2]
