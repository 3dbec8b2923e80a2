"""Distill page: a smaller model trained by a larger one."""

import streamlit as st

from pages.widgets.layers.distill_loss import training_objective
from pages.widgets.layers.explain import how_it_works
from pages.widgets.loading import skeleton
from pages.widgets.model_picker import model_summary, opened_model
from pages.widgets.runs.run_card import current_run, run_card
from pages.widgets.technique_page import PANEL_HEIGHT, choice_form

st.title("Distillation: train a smaller model")
view = opened_model()
st.markdown(model_summary(view))
controls, live = st.columns([2, 3], gap="medium")
form, objective = controls.container(border=True), live.container(border=True)
with objective, skeleton(PANEL_HEIGHT), form:
    choices = choice_form("distillation", view, "distill")
with objective:
    training_objective(view, choices.step, choices.recipe, "distill")
if run := current_run():
    st.divider()
    run_card(run, "distill")
st.divider()
how_it_works(choices.config)
