from pages.panels.layers.where_the_bytes_are import where_the_bytes_are
from tests.pages.panels import tables


def test_tied_layers_count_once():
    tree = where_the_bytes_are(tables.layers()).data[0]
    assert (
        "layer lm_head" not in tree.ids
        and tree.values[0] == tables.layers().query("tied_to == ''").original_bytes.sum()
    )


def test_every_tile_is_as_large_as_what_it_holds():
    tree = where_the_bytes_are(tables.layers(3)).data[0]
    sizes = dict(zip(tree.ids, tree.values, strict=True))
    parents = set(tree.parents) - {""}
    assert len(parents) > 1 and parents < sizes.keys()
    for parent in parents:
        inside = [v for p, v in zip(tree.parents, tree.values, strict=True) if p == parent]
        assert sum(inside) == sizes[parent]


def test_layers_are_named_within_their_block():
    tree = where_the_bytes_are(tables.layers()).data[0]
    assert (
        dict(zip(tree.ids, tree.labels, strict=True))["layer model.layers.0.attn.q_proj"]
        == "attn.q_proj"
    )
