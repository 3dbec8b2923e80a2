from pages.panels.panel import Panel
from pages.panels.theme import base_figure
from tests.pages.panels import tables


def test_a_panel_without_words_of_its_own_counts_rows():
    panel = Panel("How many?", "Count them.", draw=lambda table: base_figure())
    assert (
        panel.alt(tables.channels(3)) == "How many? 3 rows"
        and panel.alt(tables.channels(1)) == "How many? 1 row"
    )
