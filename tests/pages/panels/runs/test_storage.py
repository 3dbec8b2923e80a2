from pages.panels.runs.storage import STORAGE, storage
from pages.panels.theme import COMPRESSED, ORIGINAL, REFERENCE
from tests.pages.panels import tables


def test_bars_are_the_bytes_of_all_layers_in_each_format_that_all_allow():
    [bars] = storage(tables.storage()).data
    assert dict(zip(bars.y, bars.x, strict=True)) == {"dense": 2000, "bitmask": 1124, "csr": 2020}


def test_the_format_that_was_used_is_colored_and_counted():
    figure = storage(tables.storage())
    assert list(figure.data[0].marker.color) == [ORIGINAL, COMPRESSED, REFERENCE]
    words = dict(zip(figure.layout.yaxis.tickvals, figure.layout.yaxis.ticktext, strict=True))
    assert words["bitmask"].endswith("2 of 2 layers") and "layers" not in words["csr"]


def test_the_description_names_the_smallest():
    assert STORAGE.describe(tables.storage()) == (
        "Bitmask and values is the smallest, 1.1 kB; dense takes 2.0 kB."
    )
