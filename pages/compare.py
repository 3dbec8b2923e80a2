"""Compare: any number of finished runs side by side, with a link that brings the view back."""

import streamlit as st

from engine.results.analysis import comparable, layers_side_by_side, trade_off
from pages.panels import LAYER_ERROR_SIDE_BY_SIDE, ONE_LAYER_SIDE_BY_SIDE, TRADE_OFF
from pages.parts.comparison import comparison_table, histograms_side_by_side, pick_common_layer, pick_runs, tables_by_label
from pages.parts.plainly import plainly
from pages.parts.show import show

st.title("Which is the better trade?")
chosen = pick_runs()
if not chosen:
    st.info("Choose finished runs above. Two settings of one technique on one model make a good first comparison.")
    st.stop()
if why := comparable(chosen):
    st.warning(why)
comparison_table(chosen)
points = trade_off(chosen)
for measure, rows in points.groupby("quality_name"):
    show(TRADE_OFF, rows, f"trade-off-{measure}")
with plainly():
    tables = tables_by_label(chosen)
show(LAYER_ERROR_SIDE_BY_SIDE, layers_side_by_side(tables), "layers")
layer = pick_common_layer(tables)
if layer:
    show(ONE_LAYER_SIDE_BY_SIDE, histograms_side_by_side(tables, layer), "one-layer")
