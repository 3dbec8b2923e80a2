import pandas as pd
import pytest

from pages.panels.layers.sensitivity import (
    MAX_LAYERS,
    SENSITIVITY,
    SMALLEST_SHIFT,
    sensitivity,
)
from tests.pages.panels import tables
from tests.pages.panels.traces import trace_named


def test_every_candidate_is_one_disc_with_its_bits_at_its_divergence():
    settings = tables.sensitivity()
    figure = sensitivity(settings)
    discs = [trace_named(figure, name) for name in ("Chosen bits", "Other candidates")]
    drawn = sorted(
        (layer, int(bits), shift)
        for disc in discs
        for layer, bits, shift in zip(disc.y, disc.text, disc.x, strict=True)
    )
    assert drawn == sorted(zip(settings.layer, settings.bits, settings.quantize_one, strict=True))
    assert len(discs[0].x) == settings.chosen.sum()


def test_lines_span_each_layers_least_and_largest_divergence():
    settings = tables.sensitivity()
    lines = sensitivity(settings).data[0]
    ends = settings.groupby("layer", sort=False).quantize_one.agg(["min", "max"])
    assert list(lines.x[0::3]) == list(ends["min"]) and list(lines.x[1::3]) == list(ends["max"])
    assert set(lines.x[2::3]) == {None}


def test_diamonds_show_the_other_measure_where_it_is_known():
    settings = tables.sensitivity()
    diamonds = trace_named(sensitivity(settings), "Saved by restoring this layer")
    assert list(diamonds.x) == list(settings.restore_one.dropna())
    swapped = settings.rename(
        columns={"quantize_one": "restore_one", "restore_one": "quantize_one"}
    )
    diamonds = trace_named(sensitivity(swapped), "Only this layer rounded")
    assert list(diamonds.x) == list(settings.restore_one.dropna())


def test_no_divergence_has_a_place_on_the_logarithmic_axis():
    figure = sensitivity(tables.sensitivity().assign(quantize_one=0.0))
    assert figure.layout.xaxis.type == "log"
    assert set(trace_named(figure, "Chosen bits").x) == {SMALLEST_SHIFT}


def test_beyond_sixty_the_most_sensitive_layers_are_drawn():
    one = tables.sensitivity().iloc[:1]
    many = pd.concat([one] * 70, ignore_index=True)
    many["layer"] = [f"layer {number}" for number in range(70)]
    many["quantize_one"] = [1e-3 * number for number in range(70)]
    drawn = {name for each in sensitivity(many).data[1:3] for name in each.y}
    assert drawn == {f"layer {number}" for number in range(70 - MAX_LAYERS, 70)}


@pytest.mark.parametrize("first", [0, 3, 6])
def test_the_most_sensitive_layer_is_named_whatever_the_order(first):
    settings = tables.sensitivity()
    turned = pd.concat([settings.iloc[first:], settings.iloc[:first]])
    assert "the most sensitive is model.layers.2.mlp" in SENSITIVITY.describe(turned)
    assert SENSITIVITY.describe(turned).endswith("Layers got 2 to 4 bits.")
