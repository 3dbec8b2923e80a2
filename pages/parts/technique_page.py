"""The page of a family: a form, a forecast, a run, what it did, and how it works."""

from dataclasses import dataclass
from typing import Any

import streamlit as st

from engine.catalog.technique import Technique
from engine.recipe import Recipe
from engine.results.answers import ModelView
from pages.parts.chain import add_to_the_pipeline
from pages.parts.directions import directions
from pages.parts.explain import how_it_works, on_real_weights
from pages.parts.forecast import forecast_line
from pages.parts.forms import pick_technique, technique_form
from pages.parts.measure_form import measured_recipe
from pages.parts.microscope import microscope
from pages.parts.model_picker import facts, opened_model
from pages.parts.overlap import overlap
from pages.parts.run_card import current_run, run_button, run_card
from pages.parts.what_if import what_if


@dataclass(frozen=True)
class Asked:
    """What a form asks for."""

    how: type[Technique]
    step: dict[str, Any]
    recipe: Recipe | None  # None where the options make none
    refused: bool  # whether the page says already why it cannot be run


def asked_for(family: str, view: ModelView, key: str) -> Asked:
    """The technique, its options and the recipe that they make; with the forecast, and the button that runs it."""
    how = pick_technique(family)
    step = technique_form(how, key)
    recipe = measured_recipe([step], view)
    refused = recipe is None or not forecast_line(recipe)
    run_button(None if refused else recipe, key)
    add_to_the_pipeline(step, recipe is not None, key)
    return Asked(how, step, recipe, refused)


def technique_page(title: str, family: str, key: str) -> None:
    st.title(title)
    view = opened_model()
    st.markdown(facts(view))
    controls, live = st.columns([2, 3], gap="medium")
    with controls, st.container(border=True):
        asked = asked_for(family, view, key)
    step, recipe = asked.step, asked.recipe
    with live, st.container(border=True):
        what_if(view, step, recipe, key, refused=asked.refused)
    if run := current_run():
        st.divider()
        run_card(run, key)
    st.divider()
    how_it_works(asked.how)
    on_real_weights(view, step, recipe, key)
    if "sparsity" in step:
        st.divider()
        overlap(view, step, recipe, key, asked.refused)
    if family == "low-rank":
        st.divider()
        directions(view, step, recipe, key)
    st.divider()
    microscope(view, step, recipe, key)
