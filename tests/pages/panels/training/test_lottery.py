import pytest

from pages.panels.training.lottery import LOTTERY, VARIANTS, lottery
from tests.pages.panels import tables
from tests.pages.panels.traces import trace_named


def test_lines_are_means_over_the_seeds_and_bands_reach_from_the_least_to_the_best():
    networks = tables.lottery()
    figure = lottery(networks)
    for place, (variant, name) in enumerate(VARIANTS.items()):
        rounds = networks[networks.variant == variant].groupby("round").accuracy
        line, band = trace_named(figure, name.capitalize()), figure.data[2 * place]
        assert list(line.y) == pytest.approx(list(rounds.mean()))
        assert band.fill == "toself" and list(band.y) == pytest.approx(
            [*rounds.min(), *rounds.max()[::-1]]
        )


def test_fewer_weights_are_further_right():
    axis = lottery(tables.lottery()).layout.xaxis
    assert axis.autorange == "reversed" and axis.type == "log"
    assert list(axis.tickvals) == [0.09, 0.3, 1.0] and axis.ticktext[-1] == "100%"


def test_the_dashed_line_is_the_mean_of_the_dense_networks():
    [dense] = lottery(tables.lottery()).layout.shapes
    assert dense.y0 == pytest.approx(0.955)


def test_the_description_compares_the_sparsest_networks():
    assert LOTTERY.describe(tables.lottery()).startswith(
        "With 9.0% of the weights remaining, mean accuracy: winning ticket 93.5%"
    )
