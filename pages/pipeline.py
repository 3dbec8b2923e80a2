"""Pipeline page: steps of all families in order, each applied to the result of the previous one."""

import streamlit as st

from pages.widgets.forms.forecast import forecast_line
from pages.widgets.forms.measure_form import recipe_form
from pages.widgets.layers.what_if import what_if
from pages.widgets.model_picker import model_summary, opened_model
from pages.widgets.recipes.pipeline_editor import edited_steps, open_step, step_picker
from pages.widgets.recipes.recipe_file import recipe_file
from pages.widgets.recipes.recipe_link import store_in_address
from pages.widgets.runs.run_card import current_run, run_button, run_card

st.title("Pipeline: several steps in one run")
view = opened_model()
st.markdown(model_summary(view))
steps_column, form_column = st.columns([3, 2], gap="medium")
with steps_column:
    steps = edited_steps()
    with st.container(border=True):
        step_picker()
with form_column, st.container(border=True):
    recipe = recipe_form(
        steps, view, st.session_state.get("pipeline-other-fields", {}).get(view.reference)
    )
    store_in_address(recipe, steps)
    error_shown = recipe is None or (bool(steps) and not forecast_line(recipe))
    run_button(recipe if steps and not error_shown else None, "pipeline")
    recipe_file(recipe if steps else None)
if (
    (open_with_earlier := open_step())
    and recipe
    and st.toggle("Try the open step on one layer", key="pipeline-look")
):
    earlier, step = open_with_earlier
    what_if(view, step, recipe, "pipeline", earlier, error_shown)
if run := current_run():
    st.divider()
    run_card(run, "pipeline")
