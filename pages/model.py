"""Model page: architecture, bytes by layer, and a view of single layers."""

from dataclasses import replace

import streamlit as st

from engine.queries import LayerQuery
from pages.panels import CHANNEL_RANGES, SPECTRUM, WEIGHT_HISTOGRAM, WHERE_THE_BYTES_ARE
from pages.widgets.chart_card import show
from pages.widgets.glossary_help import meaning
from pages.widgets.layers.layer_table import layer_table
from pages.widgets.model_picker import bits_line, facts, opened_model
from pages.widgets.queries import ask_or_stop, escaped

WEIGHTS = replace(
    WEIGHT_HISTOGRAM,
    question="How are the weights distributed?",
    caption="Histogram of the weights: the tails make low-bit quantization hard.",
)

st.title("What is in this model?")
view = opened_model()
st.markdown(facts(view))
st.caption(
    escaped(bits_line(view)),
    help=f"{meaning('bits_per_parameter')}\n\n{meaning('bits_per_weight')}",
)
for note in view.notes:
    st.warning(escaped(note))
show(WHERE_THE_BYTES_ARE, view.layers, "bytes")

st.markdown("### A closer look at one layer")
names = view.layers[view.layers.tied_to == ""].name.tolist()
layer = st.selectbox(
    "Layer", names, min(1, len(names) - 1), key="model-layer", help="Type to search."
)
with st.spinner("Loading the layer…"):
    look = ask_or_stop(LayerQuery(view.reference, layer), timeout=300)
left, right = st.columns(2, gap="large")
with left:
    show(WEIGHTS, look.histogram, "weights")
with right:
    show(SPECTRUM, look.spectrum, "spectrum")
show(CHANNEL_RANGES, look.channels, "ranges")
st.markdown("### Every layer")
layer_table(view.layers)
