import pandas as pd
import pytest

from pages.panels.training.learning_rate import learning_rate
from tests.pages.panels import tables


def test_rate_and_pace_are_drawn_as_they_were_noted():
    rate, pace = learning_rate(tables.curves(steps=20)).data
    assert (
        rate.y[0] == pytest.approx(1e-3 * 19 / 20)
        and rate.y[-1] == 0
        and set(pace.y) == {900.0}
        and pace.yaxis == "y2"
    )
    assert (
        len(learning_rate(pd.concat([tables.curves(phase=each) for each in ("a", "b")])).data) == 4
    )
