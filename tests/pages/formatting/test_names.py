"""Names as people read them."""

import pytest

from pages.formatting.names import (
    layer_axis,
    multiline_label,
    plotly_text,
    short_label,
    short_layer_name,
)
from tests.cases import for_each
from tests.pages.panels import tables


def test_short_names_stay_whole():
    assert short_layer_name("lm_head") == short_label("lm_head") == "lm_head"


def test_long_names_keep_their_end_from_a_dot_on():
    assert short_layer_name(tables.LAYER) == "…layers.2.mlp.down_proj"


def test_long_names_without_dots_keep_their_end_too():
    assert short_layer_name("x" * 50) == "…" + "x" * 25


def test_long_labels_keep_their_start():
    assert (
        short_label("GPTQ 4-bit, groups of 32, act order").startswith("GPTQ 4-bit")
        and len(short_label("y" * 99)) == 32
    )


@pytest.mark.parametrize("written", [short_layer_name, short_label, multiline_label])
def test_names_are_never_read_as_markup(written):
    assert "<a" not in written("<a href='x'>")


def test_an_axis_leaves_out_what_all_names_begin_with():
    assert layer_axis(["model.layers.0.mlp.up_proj", "model.layers.1.mlp.up_proj"])["ticktext"] == [
        "0.mlp.up_proj",
        "1.mlp.up_proj",
    ]
    assert layer_axis(["model.layers.0.mlp.up_proj"])["ticktext"] == ["model.layers.0.mlp.up_proj"]
    assert layer_axis(["layer10", "layer11"])["ticktext"] == ["layer10", "layer11"]


def test_two_layers_with_the_same_end_stay_two_rows():
    axis = layer_axis(
        ["encoder.layers.0.mlp.down_proj.weight", "decoder.layers.0.mlp.down_proj.weight"]
    )
    assert len(set(axis["tickvals"])) == 2


@for_each("written", [plotly_text, short_layer_name, short_label, multiline_label])
def test_formulas_stay_text(written):
    assert "$" not in written("$x$") and "&#36;" in written("$x$")
