"""Model: what is in it, where the bytes are, and a look at any layer."""

import streamlit as st

from pages.panels import CHANNEL_RANGES, SPECTRUM, WEIGHT_HISTOGRAM, WHERE_THE_BYTES_ARE
from pages.parts.model_picker import facts, opened_model
from pages.parts.plainly import asked, escaped
from pages.parts.show import show

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
    show(WEIGHT_HISTOGRAM, look.histogram, "weights")
with right:
    show(SPECTRUM, look.spectrum, "spectrum")
show(CHANNEL_RANGES, look.channels, "ranges")
st.markdown("### All layers")
st.dataframe(view.layers.drop(columns=["technique", "relative_error", "output_error", "sqnr_db", "largest_error"]), hide_index=True, width="stretch")
