import numpy as np

from pages.panels.explain.gptq_replay import gptq_replay
from pages.panels.theme import HIGHLIGHT
from tests.pages.panels import tables


def test_every_step_of_the_replay_has_a_frame_and_a_stop_of_the_slider():
    figure = gptq_replay(tables.replay(places=5))
    stops = [stop.args[0][0] for stop in figure.layout.sliders[0].steps]
    assert [each.name for each in figure.frames] == stops == ["0", "1", "2", "3", "4", "5"]
    assert figure.layout.sliders[0].active == stops.index("3") and figure.data[4].x == (3,)


def test_a_frame_shows_how_far_each_weight_is_from_its_original():
    replay = tables.replay(rows=3, places=5)
    for frame in gptq_replay(replay).frames:
        now = replay[replay.step == int(frame.name)]
        for tiles, way in zip(frame.data[:2], ("gptq", "plain"), strict=True):
            np.testing.assert_allclose(
                tiles.z, (now[way] - now.original).to_numpy().reshape(3, 5), atol=1e-6
            )


def test_the_red_frame_is_on_the_column_just_rounded():
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
