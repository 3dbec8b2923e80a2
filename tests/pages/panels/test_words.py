"""Numbers and names as people read them."""

import pytest

from pages.formatting.names import layer_axis, multiline_label, short_label, short_layer_name
from pages.formatting.numbers import UNKNOWN, change, count, duration, megabytes, percent
from pages.panels.panel import Panel
from pages.panels.theme import base_figure
from tests.cases import for_each
from tests.pages.panels import tables

NAN = float("nan")


@for_each(
    ("written", "read"),
    [
        (megabytes(10_400_000), "10.4 MB"),
        (megabytes(0), "0 B"),
        (megabytes(512), "512 B"),
        (megabytes(3_100), "3.1 kB"),
        (megabytes(999_960), "1.0 MB"),
        (megabytes(104_400_000), "104 MB"),
        (megabytes(13_476_838_400), "13.5 GB"),
        (percent(0.031), "3.1%"),
        (percent(0), "0%"),
        (percent(1), "100%"),
        (percent(0.00042), "0.042%"),
        (percent(0.634), "63.4%"),
        (change(18.3, 18.9), "+3.3%"),
        (change(20, 10), "-50.0%"),
        (change(5, 5), "±0%"),
        (change(-2, -1), "+50.0%"),
        (duration(9.2), "9 s"),
        (duration(0.42), "0.4 s"),
        (duration(125), "2 min 5 s"),
        (duration(59.7), "1 min 0 s"),
        (duration(3720), "1 h 2 min"),
        (count(5_200_000), "5.2 M"),
        (count(812), "812"),
        (count(12_300), "12.3 k"),
        (count(7_240_000_000), "7.2 B"),
    ],
)
def test_numbers_read_as_people_write_them(written, read):
    assert written == read


@for_each(
    "words",
    [
        megabytes(NAN),
        percent(NAN),
        duration(NAN),
        count(NAN),
        change(NAN, 1),
        change(1, NAN),
        change(0, 1),
    ],
)
def test_unknown_is_a_dash(words):
    assert words == UNKNOWN


@for_each("size", [1, 999, 1000, 999_499, 999_500, 10**9, 10**14])
def test_no_size_needs_four_digits_below_terabytes(size):
    assert len(megabytes(size).split()[0].replace(".", "")) <= 3


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


def test_a_panel_without_words_of_its_own_counts_rows():
    panel = Panel("How many?", "Count them.", draw=lambda table: base_figure())
    assert (
        panel.alt(tables.channels(3)) == "How many? 3 rows"
        and panel.alt(tables.channels(1)) == "How many? 1 row"
    )
