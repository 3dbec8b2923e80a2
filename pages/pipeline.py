"""Pipeline: any steps of all families, one after the other, each over what the one before has written."""

import streamlit as st

from pages.parts.chain import one_more, step_looked_at, steps_in_order
from pages.parts.forecast import forecast_line
from pages.parts.measure_form import measured_recipe
from pages.parts.model_picker import facts, opened_model
from pages.parts.recipe_file import recipe_file
from pages.parts.recipe_link import link_to
from pages.parts.run_card import current_run, run_button, run_card
from pages.parts.what_if import what_if

st.title("Pipeline: one step after another")
view = opened_model()
st.markdown(facts(view))
chained, asked = st.columns([3, 2], gap="medium")
with chained:
    steps = steps_in_order()
    with st.container(border=True):
        one_more()
with asked, st.container(border=True):
    recipe = measured_recipe(steps, view, st.session_state.get("pipeline-beside", {}).get(view.reference))
    link_to(recipe, steps)
    refused = recipe is None or (bool(steps) and not forecast_line(recipe))
    run_button(recipe if steps and not refused else None, "pipeline")
    recipe_file(recipe if steps else None)
if (look := step_looked_at()) and recipe and st.toggle("Look at the open step on one layer", key="pipeline-look"):
    earlier, step = look
    what_if(view, step, recipe, "pipeline", earlier, refused)
if run := current_run():
    st.divider()
    run_card(run, "pipeline")
