from pages.panels.layers.cumulative_energy import CUMULATIVE_ENERGY, cumulative_energy
from tests.pages.panels import tables
from tests.pages.panels.traces import trace_named


def test_lines_rise_to_the_whole_energy_and_the_cut_is_marked():
    singular = tables.singular(rank=6)
    figure = cumulative_energy(singular)
    for name, version in (("Weights", "plain"), ("Whitened", "whitened")):
        line = trace_named(figure, name)
        assert list(line.y) == list(singular[singular.version == version].cumulative_energy)
        assert list(line.y) == sorted(line.y) and abs(line.y[-1] - 1) < 1e-9
    [cut] = figure.layout.shapes
    assert cut.x0 == 6.5


def test_the_description_gives_the_energy_at_the_cut():
    said = CUMULATIVE_ENERGY.describe(tables.singular(rank=24, number=24))
    assert said == (
        "The first 24 singular values hold 100% (weights), 100% (whitened) of the energy."
    )
