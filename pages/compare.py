"""Compare page: finished runs side by side, with a link to the view."""

import streamlit as st

from engine.results.analysis.runs import layers_side_by_side, trade_off, why_not_comparable
from pages.panels import LAYER_ERROR_SIDE_BY_SIDE, ONE_LAYER_SIDE_BY_SIDE, TRADE_OFF
from pages.widgets.chart_card import show_panel
from pages.widgets.queries import literal_markdown, show_errors
from pages.widgets.runs.comparison import (
    comparison_table,
    histograms_side_by_side,
    pick_common_layer,
    pick_runs,
    readable_runs,
    tables_by_label,
)

st.title("Which is the better trade-off?")
chosen = pick_runs()
if not chosen:
    st.info("Choose finished runs above, for example two settings of one technique on one model.")
    st.stop()
chosen = readable_runs(chosen)
if not chosen:
    st.stop()
if why := why_not_comparable(chosen):
    st.warning(literal_markdown(why))
comparison_table(chosen)
points = trade_off(chosen)
for measure, rows in points.groupby("quality_name"):
    show_panel(TRADE_OFF, rows, f"trade-off-{measure}")
tables = tables_by_label(chosen)
if not tables:
    st.stop()
with show_errors("The layers of these runs"):
    show_panel(LAYER_ERROR_SIDE_BY_SIDE, layers_side_by_side(tables), "layers")
    layer = pick_common_layer(tables)
    if layer:
        show_panel(ONE_LAYER_SIDE_BY_SIDE, histograms_side_by_side(tables, layer), "one-layer")
