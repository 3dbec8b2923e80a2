from pages.panels.layers.alpha_search import alpha_search
from pages.panels.theme import COMPRESSED
from tests.pages.panels import tables
from tests.pages.panels.traces import trace


def test_the_selected_layer_is_highlighted():
    figure = alpha_search(tables.searches(), layer="model.layers.2.q")
    assert next(t for t in figure.data if t.line.color == COMPRESSED).name == "model.layers.2.q"
    assert (
        trace(figure, "Other layers").y.count(None) == 2
        and trace(figure, "Other layers").line.width == 1
    )


def test_without_a_selection_the_largest_gain_is_highlighted():
    assert (
        next(t for t in alpha_search(tables.searches()).data if t.line.color == COMPRESSED).name
        == "model.layers.1.q"
    )


def test_the_chosen_alpha_is_marked():
    chosen = trace(alpha_search(tables.searches()), "Chosen")
    assert (list(chosen.x), list(chosen.y)) == ([0.5], [0.4])


def test_a_single_alpha_is_no_search():
    assert not alpha_search(tables.searches().query("alpha == 0.5")).data


def test_errors_far_apart_take_a_logarithmic_axis():
    wild = tables.searches().assign(error=lambda t: t.error.where(t.alpha < 0.7, 500))
    assert (
        alpha_search(tables.searches()).layout.yaxis.type,
        alpha_search(wild).layout.yaxis.type,
    ) == (None, "log")
