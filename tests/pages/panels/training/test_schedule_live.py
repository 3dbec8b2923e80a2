from pages.panels.training.schedule_live import SCHEDULE_LIVE, schedule_live
from tests.pages.panels import tables
from tests.pages.panels.traces import trace_named


def test_it_shows_what_the_finished_schedule_shows():
    """The sample rows are those of ``tables.schedule``, as they come in."""
    figure, moments = schedule_live(tables.schedule_live()), tables.schedule()
    quality, zeros = trace_named(figure, "Held out"), trace_named(figure, "Zero weights")
    assert list(quality.x) == list(zeros.x) == list(moments.step)
    assert list(quality.y) == list(moments.quality)
    assert list(zeros.y) == list(moments.sparsity) and zeros.yaxis == "y2"


def test_the_description_is_of_the_latest_moment():
    curves = tables.schedule_live()
    assert SCHEDULE_LIVE.describe(curves) == (
        "After 30 steps 80.0% of the weights are zero, accuracy 96.0%."
    )
    first = curves.head(2)
    assert SCHEDULE_LIVE.describe(first).startswith("After 0 steps 0% of the weights")
