from itertools import pairwise

from pages.panels.weights.one_layer_side_by_side import one_layer_side_by_side, strip_domain
from tests.pages.panels import tables


def test_every_technique_has_its_strip_with_the_original_behind():
    labels = ("GPTQ", "AWQ", "NF4")
    figure = one_layer_side_by_side(tables.with_labels(tables.histogram(), *labels))
    assert [a.text for a in figure.layout.annotations] == list(labels)
    assert (
        [t.yaxis for t in figure.data if t.name == "Original"]
        == [t.yaxis for t in figure.data if t.name == "Compressed"]
        == ["y", "y2", "y3"]
    )
    assert sum(bool(t.showlegend) for t in figure.data) == 2, "one legend for all strips"


def test_strips_do_not_overlap():
    domains = [strip_domain(number, 5) for number in range(5)]
    assert all(0 <= bottom < top <= 1 for bottom, top in domains)
    assert all(above[0] > below[1] for above, below in pairwise(domains))
