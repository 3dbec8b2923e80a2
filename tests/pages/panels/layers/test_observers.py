from pages.panels.layers.observers import TITLES, observers
from pages.panels.theme import COMPRESSED
from tests.pages.panels import tables


def test_each_observer_has_its_range_and_the_recipes_is_highlighted():
    figure = observers(tables.ranges())
    spans = {t.y[0]: t for t in figure.data if t.yaxis == "y2"}
    assert set(spans) == set(TITLES.values()) and list(spans["entropy (KL)"].x) == [-2, 2]
    assert [name for name, t in spans.items() if t.line.color == COMPRESSED] == ["percentile"]


def test_rounding_and_clipping_are_stacked_to_the_whole_error():
    figure, table = observers(tables.ranges()), tables.ranges()
    parts = [t for t in figure.data if t.xaxis == "x2" and t.type == "bar"]
    whole = next(t for t in figure.data if t.type == "scatter" and t.mode == "text").x
    assert figure.layout.barmode == "stack" and list(parts[0].x + parts[1].x) == list(
        whole
    ) == list(table.rounding_error + table.clipping_error)


def test_a_range_that_clips_is_called_saturating_and_one_that_does_not_is_not():
    words = {t.y[0]: t.hovertext for t in observers(tables.ranges()).data if t.yaxis == "y2"}
    assert (
        "non-saturating" in words["min-max"]
        and "non-saturating" not in words["entropy (KL)"]
        and "saturating" in words["entropy (KL)"]
    )


def test_inputs_and_ranges_share_an_axis():
    bars = observers(
        tables.ranges(), histogram=tables.histogram().query("version == 'original'")
    ).data[-1]
    assert (
        bars.xaxis == "x"
        and sum(bars.y) == 5000
        and observers(tables.ranges()).layout.xaxis.anchor == "y2"
    )
