from pages.panels.layers.spectrum import spectrum
from pages.panels.theme import HIGHLIGHT
from tests.pages.panels import tables


def test_milestones_stand_where_the_energy_is_first_reached():
    rows = tables.spectrum()
    marks = next(t for t in spectrum(rows).data if t.marker.color == HIGHLIGHT)
    for share, rank in zip((0.5, 0.9, 0.99), marks.x, strict=True):
        assert rows.cumulative_energy[rows["index"] == rank].item() >= share
        assert (rows.cumulative_energy[rows["index"] < rank] < share).all()


def test_share_that_is_never_reached_is_not_marked():
    marks = next(
        t
        for t in spectrum(tables.spectrum().query("cumulative_energy < 0.95")).data
        if t.marker.color == HIGHLIGHT
    )
    assert len(marks.x) == 2
