"""Panels of techniques at work, and of single weights."""

import numpy as np
import pytest

from pages.panels.explain.gptq_replay import gptq_replay
from pages.panels.explain.scaled_column import scaled_column
from pages.panels.layers.channel_selection import channel_selection
from pages.panels.layers.input_reach import input_ranges
from pages.panels.layers.outlier_columns import outlier_columns
from pages.panels.theme import COMPRESSED, HIGHLIGHT
from pages.panels.weights.error_by_bits import error_by_bits
from pages.panels.weights.group_rounding import group_rounding
from pages.panels.weights.weight_map import weight_map
from tests.pages.panels import tables


def trace_named(figure, name: str):
    return next(trace for trace in figure.data if trace.name == name)


def test_every_step_of_the_replay_has_a_frame_and_a_stop_of_the_slider():
    figure = gptq_replay(tables.replay(places=5))
    stops = [stop.args[0][0] for stop in figure.layout.sliders[0].steps]
    assert [frame.name for frame in figure.frames] == stops == ["0", "1", "2", "3", "4", "5"]
    assert figure.layout.sliders[0].active == stops.index("3") and figure.data[4].x == (3,)


def test_a_frame_shows_how_far_each_weight_is_from_its_original():
    replay = tables.replay(rows=3, places=5)
    for frame in gptq_replay(replay).frames:
        now = replay[replay.step == int(frame.name)]
        for tiles, way in zip(frame.data[:2], ("gptq", "plain"), strict=True):
            np.testing.assert_allclose(
                tiles.z, (now[way] - now.original).to_numpy().reshape(3, 5), atol=1e-6
            )


def test_the_red_frame_stands_on_the_column_just_rounded():
    figure = gptq_replay(tables.replay())
    for frame in figure.frames:
        step, box = int(frame.name), frame.layout.shapes[0]
        assert (
            (box.x0, box.x1) == (step - 1.5, step - 0.5)
            and box.visible == (step > 0)
            and box.line.color == HIGHLIGHT
        )
    assert "column 4 rounded, off by 0.1" in figure.frames[1].layout.annotations[0].text, (
        "the first in the order, not the first of the layer"
    )


def test_colors_mean_the_same_at_every_step():
    figure = gptq_replay(tables.replay())
    ends = {(tiles.zmin, tiles.zmax) for frame in figure.frames for tiles in frame.data[:2]} | {
        (t.zmin, t.zmax) for t in figure.data[:2]
    }
    assert len(ends) == 1 and ends == {(-max(ends)[1], max(ends)[1])}


def test_each_weight_is_joined_to_what_it_becomes():
    group = tables.group()
    figure = group_rounding(group, tables.levels(16))
    strokes = next(trace for trace in figure.data if trace.name is None and trace.mode == "lines")
    assert strokes.y[0::3] == tuple(group.original) and strokes.y[1::3] == tuple(group.stored)
    assert {y for y in trace_named(figure, "16 levels").y if y is not None} == set(
        tables.levels(16).value
    )


def test_the_weight_that_was_asked_about_is_ringed():
    assert list(trace_named(group_rounding(tables.group()), "This weight").x) == [3]
    assert all(
        trace.name != "This weight"
        for trace in group_rounding(tables.group().assign(chosen=False)).data
    )


def test_a_click_on_the_map_names_the_weights_own_row_and_column():
    piece = tables.weight_piece()
    tiles, targets = weight_map(piece).data
    assert set(zip(targets.y, targets.x, strict=True)) == set(
        zip(piece.row, piece.column, strict=True)
    )
    assert list(tiles.x) == sorted(set(piece.column)) and list(tiles.y) == sorted(set(piece.row))
    assert targets.selected.marker.opacity == targets.unselected.marker.opacity == 0, (
        "a click must not change the colors"
    )


@pytest.mark.parametrize("shown", ["original", "stored", "error"])
def test_the_map_shows_what_is_asked_for_around_zero(shown):
    piece = tables.weight_piece().assign(error=lambda t: t.stored - t.original)
    tiles = weight_map(tables.weight_piece(), shown=shown).data[0]
    np.testing.assert_allclose(np.array(tiles.z).flatten(), piece[shown])
    assert tiles.zmin == -tiles.zmax < 0


def test_a_layer_of_zeros_has_a_map_too():
    tiles = weight_map(tables.weight_piece().assign(original=0.0, stored=0.0)).data[0]
    assert tiles.zmin < tiles.zmax


def test_the_chosen_weight_is_framed_on_the_map():
    box = weight_map(tables.weight_piece(), chosen=(66, 130)).layout.shapes[0]
    assert (box.x0, box.x1, box.y0, box.y1) == (129.5, 130.5, 65.5, 66.5)


def test_the_first_row_is_on_top_of_the_map():
    low, high = weight_map(tables.weight_piece()).layout.yaxis.range
    assert low > high


def test_errors_stand_below_the_weights_they_belong_to():
    figure = scaled_column(tables.scaled_column())
    assert list(trace_named(figure, "Weight").x) == list(
        trace_named(figure, "Error with the scale").x
    )
    assert figure.layout.yaxis.domain[0] > figure.layout.yaxis2.domain[1]
    assert list(trace_named(figure, "Times 2").y) == list(tables.scaled_column().scaled)


def test_inputs_stand_above_their_weights_in_the_tables_order():
    figure = input_ranges(tables.reach())
    assert [t.yaxis for t in figure.data] == ["y", "y", "y2", "y2"] and figure.layout.yaxis.domain[
        0
    ] > figure.layout.yaxis2.domain[1]
    assert list(figure.data[0].y) == list(tables.reach().input_after)


def test_columns_that_stay_in_16_bits_are_red():
    figure = outlier_columns(tables.outliers(2))
    assert (
        len(trace_named(figure, "Kept in 16 bits").x) == 2
        and trace_named(figure, "Kept in 16 bits").marker.color == HIGHLIGHT
    )
    assert not trace_named(outlier_columns(tables.outliers(0)), "Kept in 16 bits").showlegend


def test_bits_that_a_layer_may_get_are_colored():
    figure = error_by_bits(tables.bits())
    assert [
        b
        for b, color in zip(figure.data[0].x, figure.data[0].marker.color, strict=True)
        if color == COMPRESSED
    ] == [2, 4]


def test_each_way_marks_the_channels_that_it_chooses():
    figure = channel_selection(tables.criteria())
    assert len(trace_named(figure, "not chosen").x) == 17 and [
        len(t.x) for t in figure.data[1:]
    ] == [
        1,
        1,
        1,
    ]
    assert max(trace_named(figure, "by activation").y) == tables.criteria().activation.max()
