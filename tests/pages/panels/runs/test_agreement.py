import pytest

from pages.panels.runs.agreement import agreement
from tests.pages.panels import tables


def test_each_of_four_cases_has_its_share_even_if_it_is_zero():
    (bars,) = agreement(tables.verdicts()).data
    assert dict(zip(bars.y, bars.x, strict=True)) == {
        "Both right": 0.7,
        "Only the teacher": 0.15,
        "Only the student": 0.05,
        "Neither": 0.1,
    }
    (bars,) = agreement(tables.verdicts().iloc[:2]).data
    assert list(bars.x) == pytest.approx([70 / 85, 15 / 85, 0, 0])
