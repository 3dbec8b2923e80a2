import pytest

from pages.panels.layers.activation_surface import activation_surface
from tests.pages.panels import tables


@pytest.mark.parametrize("relief", [False, True])
def test_both_versions_share_one_scale_that_reaches_the_largest(relief):
    figure = activation_surface(tables.surface(), as_surface=relief)
    assert (
        len(figure.data) == 2
        and {t.coloraxis for t in figure.data} == {"coloraxis"}
        and figure.layout.coloraxis.cmax == 20
    )
    if relief:
        assert figure.layout.scene.zaxis.range == figure.layout.scene2.zaxis.range == (0, 20)
        assert figure.layout.scene.domain.x == figure.layout.scene2.domain.x == (0, 1)


def test_every_block_lies_where_its_tokens_and_channels_are():
    before = activation_surface(tables.surface()).data[0]
    assert (list(before.x), list(before.y)) == ([0, 8, 16, 24], [0, 4, 8, 12, 16, 20])
    assert before.z[0][2] == 20 and before.z[0][1] == 1 and "channel 16" in before.hovertext[0][2]


def test_an_input_without_scales_is_drawn_once_and_without_a_title():
    figure = activation_surface(tables.surface(scaled=False))
    assert len(figure.data) == 1 and all(not each.text for each in figure.layout.annotations)
