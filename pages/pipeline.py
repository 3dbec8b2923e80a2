"""Pipeline page: steps of all families in order, each applied to the result of the previous one."""

import streamlit as st

from pages.widgets.forms.forecast import forecast_line
from pages.widgets.forms.measure_form import measured_recipe
from pages.widgets.layers.what_if import what_if
from pages.widgets.model_picker import facts, opened_model
from pages.widgets.recipes.pipeline_editor import one_more, step_looked_at, steps_in_order
from pages.widgets.recipes.recipe_file import recipe_file
from pages.widgets.recipes.recipe_link import link_to
from pages.widgets.runs.run_card import current_run, run_button, run_card

st.title("Pipeline: several steps in one run")
view = opened_model()
st.markdown(facts(view))
chained, asked = st.columns([3, 2], gap="medium")
with chained:
    steps = steps_in_order()
    with st.container(border=True):
        one_more()
with asked, st.container(border=True):
    recipe = measured_recipe(
        steps, view, st.session_state.get("pipeline-beside", {}).get(view.reference)
    )
    link_to(recipe, steps)
    refused = recipe is None or (bool(steps) and not forecast_line(recipe))
    run_button(recipe if steps and not refused else None, "pipeline")
    recipe_file(recipe if steps else None)
if (
    (look := step_looked_at())
    and recipe
    and st.toggle("Try the open step on one layer", key="pipeline-look")
):
    earlier, step = look
    what_if(view, step, recipe, "pipeline", earlier, refused)
if run := current_run():
    st.divider()
    run_card(run, "pipeline")
