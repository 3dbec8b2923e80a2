"""Model: what is in it, where the bytes are, and a look at any layer."""

from dataclasses import replace

import streamlit as st

from pages.panels import CHANNEL_RANGES, SPECTRUM, WEIGHT_HISTOGRAM, WHERE_THE_BYTES_ARE
from pages.parts.layer_table import layer_table
from pages.parts.model_picker import facts, opened_model
from pages.parts.plainly import asked, escaped
from pages.parts.show import show

WEIGHTS = replace(
    WEIGHT_HISTOGRAM, question="How are its weights spread?", caption="How many weights have which value: the tails are what makes few bits hard."
)

st.title("What is in this model?")
view = opened_model()
st.markdown(facts(view))
for note in view.notes:
    st.warning(escaped(note))
show(WHERE_THE_BYTES_ARE, view.layers, "bytes")

st.markdown("### A closer look at one layer")
names = view.layers[view.layers.tied_to == ""].name.tolist()
layer = st.selectbox("Layer", names, min(1, len(names) - 1), key="model-layer", help="Type to search.")
with st.spinner("Looking at the layer…"):
    look = asked("answers:layer_view", timeout=300, model=view.reference, layer=layer)
left, right = st.columns(2, gap="large")
with left:
    show(WEIGHTS, look.histogram, "weights")
with right:
    show(SPECTRUM, look.spectrum, "spectrum")
show(CHANNEL_RANGES, look.channels, "ranges")
st.markdown("### Every layer")
layer_table(view.layers)
