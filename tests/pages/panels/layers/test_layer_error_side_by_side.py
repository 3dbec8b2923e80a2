from pages.panels.layers.layer_error_side_by_side import layer_error_side_by_side
from pages.panels.theme import SERIES
from tests.pages.panels import tables


def test_each_run_has_a_color_and_a_symbol_of_its_own():
    figure = layer_error_side_by_side(
        tables.with_labels(tables.layers(), *(f"run {i}" for i in range(8)))
    )
    assert (
        len({t.marker.color for t in figure.data})
        == len({t.marker.symbol for t in figure.data})
        == 8
    )


def test_a_ninth_run_is_left_out_and_it_says_so():
    figure = layer_error_side_by_side(
        tables.with_labels(tables.layers(), *(f"run {i}" for i in range(9)))
    )
    assert len(figure.data) == len(SERIES) and "first 8 of 9 runs" in figure.layout.xaxis.title.text


def test_a_layer_bad_under_one_run_only_is_kept_for_all():
    runs = tables.with_labels(tables.layers(50), "calm", "wild")
    runs.loc[
        (runs.name == "model.layers.3.attn.q_proj") & (runs.label == "wild"), "relative_error"
    ] = 0.9
    figure = layer_error_side_by_side(runs)
    assert all("model.layers.3.attn.q_proj" in trace.y for trace in figure.data)
