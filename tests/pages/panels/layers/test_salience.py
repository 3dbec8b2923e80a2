from pages.panels.layers.salience import SALIENCE, salience
from pages.panels.theme import COMPRESSED
from tests.pages.panels import tables
from tests.pages.panels.traces import trace_named


def test_each_way_of_choosing_has_a_curve_over_the_same_shares():
    figure = salience(tables.salience())
    for name in ("kept by activation", "kept by weight", "kept at random"):
        assert list(trace_named(figure, name).x) == ["0.1", "1", "3"]
    best = trace_named(figure, "kept by activation").y
    assert list(best) == sorted(best, reverse=True) and best[-1] < 14


def test_the_dashed_line_is_the_model_with_all_channels_rounded():
    line = trace_named(salience(tables.salience()), "all rounded")
    assert set(line.y) == {14.0} and line.line.dash == "dash"


def test_the_scale_that_was_kept_is_the_only_colored_one():
    scaled = trace_named(salience(tables.salience()), "scaled, then rounded")
    assert scaled.xaxis == "x2" and list(scaled.x) == ["1", "2", "4"]
    assert [color == COMPRESSED for color in scaled.marker.color] == [False, True, False]


def test_the_axis_says_which_way_is_better():
    variants = tables.salience()
    assert "lower is better" in salience(variants).layout.yaxis.title.text
    classifier = variants.assign(accuracy=0.9, perplexity=float("nan"))
    assert salience(classifier).layout.yaxis.title.text == "Accuracy (higher is better)"


def test_the_description_compares_the_most_channels_kept_in_every_way():
    assert SALIENCE.describe(tables.salience()) == (
        "Perplexity 14 with all channels rounded; with the most channels kept, 12.8 by "
        "activation, 14 at random, 14 by weight"
    )
