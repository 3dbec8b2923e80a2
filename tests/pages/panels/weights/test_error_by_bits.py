from pages.panels.theme import COMPRESSED
from pages.panels.weights.error_by_bits import error_by_bits
from tests.pages.panels import tables


def test_bits_that_a_layer_may_get_are_colored():
    figure = error_by_bits(tables.bits())
    assert [
        b
        for b, color in zip(figure.data[0].x, figure.data[0].marker.color, strict=True)
        if color == COMPRESSED
    ] == [2, 4]
