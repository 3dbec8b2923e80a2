"""Distill: a smaller model learns from a larger one."""

import streamlit as st

from pages.parts.explain import how_it_works
from pages.parts.forecast import forecast_line
from pages.parts.forms import pick_technique, technique_form
from pages.parts.measure_form import measured_recipe
from pages.parts.model_picker import facts, opened_model
from pages.parts.run_card import current_run, run_card, start
from pages.parts.steps_so_far import steps_so_far
from pages.parts.teaching import teaching

st.title("Distill: a student learns")
view = opened_model()
st.markdown(facts(view))
controls, live = st.columns([2, 3], gap="medium")
with controls, st.container(border=True):
    how = pick_technique("distillation")
    step = technique_form(how, "distill")
    recipe = measured_recipe(step, view)
    steps_so_far(step, recipe, "distill")
    if recipe:
        forecast_line(recipe)
    if st.button("Run", type="primary", key="distill-run", width="stretch", icon=":material/play_arrow:", disabled=recipe is None):
        start(recipe)
with live, st.container(border=True):
    teaching(view, step, recipe, "distill")
if run := current_run():
    st.divider()
    run_card(run, "distill")
st.divider()
how_it_works(how)
