"""Start page: what the app does, and a first run with one click."""

import streamlit as st

from engine.recipe.model_names import BUNDLED_MODELS
from pages.widgets.model_picker import choose_model
from pages.widgets.runs.example import finished_example
from pages.widgets.runs.run_card import current_run, run_card, start_run
from pages.widgets.state import recipe_for

st.title("What does compression do to a model?")
st.markdown(
    "Pick a model and a technique, press Run, and see what happened to the weights, the layers and "
    "the quality. Everything is computed on this machine, and all results are measured, not "
    "estimated."
)
for column, bundled in zip(st.columns(len(BUNDLED_MODELS)), BUNDLED_MODELS.values(), strict=True):
    with column.container(border=True, height="stretch"):
        st.markdown(f"**{bundled.title}**")
        st.caption(bundled.about)
        first = bundled.reference == "bundled:docs-lm"
        options = {"type": "primary" if first else "secondary", "width": "stretch"}
        if st.button(
            "Compress to 4 bits",
            key=f"start-{bundled.name}",
            on_click=choose_model,
            args=(bundled.reference,),
            **options,
        ):
            start_run(
                recipe_for(
                    [{"technique": "round-to-nearest"}], bundled.reference, bundled.task.kind
                )
            )
if run := current_run():
    run_card(run, "start")
else:
    finished_example()
