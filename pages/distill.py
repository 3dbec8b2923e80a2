"""Distill: a smaller model learns from a larger one."""

import streamlit as st

from pages.parts.explain import how_it_works
from pages.parts.model_picker import facts, opened_model
from pages.parts.run_card import current_run, run_card
from pages.parts.teaching import teaching
from pages.parts.technique_page import asked_for

st.title("Distill: a student learns")
view = opened_model()
st.markdown(facts(view))
controls, live = st.columns([2, 3], gap="medium")
with controls, st.container(border=True):
    asked = asked_for("distillation", view, "distill")
with live, st.container(border=True):
    teaching(view, asked.step, asked.recipe, "distill")
if run := current_run():
    st.divider()
    run_card(run, "distill")
st.divider()
how_it_works(asked.how)
