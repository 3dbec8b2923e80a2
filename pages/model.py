"""Model page: architecture, bytes by layer, and a view of single layers."""

from dataclasses import replace

import streamlit as st

from engine.queries import LayerQuery
from pages.panels import CHANNEL_RANGES, SPECTRUM, WEIGHT_HISTOGRAM, WHERE_THE_BYTES_ARE
from pages.widgets.chart_card import show_panel
from pages.widgets.glossary_help import meaning
from pages.widgets.layers.layer_table import layer_table
from pages.widgets.model_picker import bits_line, model_summary, opened_model
from pages.widgets.queries import ask_or_stop, literal_markdown

WEIGHTS = replace(
    WEIGHT_HISTOGRAM,
    question="How are the weights distributed?",
    caption="Histogram of the weights: the tails make low-bit quantization hard.",
)

st.title("What is in this model?")
view = opened_model()
st.markdown(model_summary(view))
st.caption(
    literal_markdown(bits_line(view)),
    help=f"{meaning('bits_per_parameter')}\n\n{meaning('bits_per_weight')}",
)
for note in view.notes:
    st.warning(literal_markdown(note))
show_panel(WHERE_THE_BYTES_ARE, view.layers, "bytes")

st.markdown("### A closer look at one layer")
names = view.layers[view.layers.tied_to == ""].name.tolist()
layer = st.selectbox(
    "Layer", names, min(1, len(names) - 1), key="model-layer", help="Type to search."
)
with st.spinner("Loading the layer…"):
    layer_view = ask_or_stop(LayerQuery(view.reference, layer), timeout=300)
left, right = st.columns(2, gap="large")
with left:
    show_panel(WEIGHTS, layer_view.histogram, "weights")
with right:
    show_panel(SPECTRUM, layer_view.spectrum, "spectrum")
show_panel(CHANNEL_RANGES, layer_view.channels, "ranges")
st.markdown("### Every layer")
layer_table(view.layers)
