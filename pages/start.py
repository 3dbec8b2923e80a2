"""Start: what this is, and one click to a first real result."""

import streamlit as st

from engine.catalog.models import BUNDLED
from engine.catalog.quantization import RoundToNearest
from pages.parts.example import finished_example
from pages.parts.model_picker import choose_model
from pages.parts.run_card import current_run, run_card, start
from pages.parts.state import recipe_for

st.title("What does compression do to a model?")
st.markdown(
    "Pick a model and a technique, press Run, and see what happened to the weights, the layers and the quality. "
    "Everything is computed on this machine, and every number on the screen was measured."
)
for column, bundled in zip(st.columns(len(BUNDLED)), BUNDLED.values(), strict=True):
    with column.container(border=True, height="stretch"):
        st.markdown(f"**{bundled.title}**")
        st.caption(bundled.about)
        first = bundled.reference == "bundled:docs-lm"
        look = {"type": "primary" if first else "secondary", "width": "stretch"}
        if st.button("Compress to 4 bits", key=f"start-{bundled.name}", on_click=choose_model, args=(bundled.reference,), **look):
            start(recipe_for([RoundToNearest().model_dump()], bundled.reference, bundled.task.kind))
if run := current_run():
    run_card(run, "start")
else:
    finished_example()
