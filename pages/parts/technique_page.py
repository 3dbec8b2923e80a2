"""The page of a family: a form, a forecast, a run, what it did, and how it works."""

from dataclasses import dataclass
from typing import Any

import streamlit as st

from engine.catalog import TECHNIQUES
from engine.catalog.technique import Technique
from engine.recipe import Recipe
from engine.results.answers import ModelView
from pages.parts.chain import add_to_the_pipeline
from pages.parts.directions import directions
from pages.parts.explain import how_it_works, on_real_weights, what_lies_ahead
from pages.parts.forecast import forecast_line
from pages.parts.forms import pick_technique, technique_form
from pages.parts.measure_form import measured_recipe
from pages.parts.microscope import microscope
from pages.parts.model_picker import facts, opened_model
from pages.parts.overlap import overlap
from pages.parts.plainly import plainly
from pages.parts.run_card import current_run, run_button, run_card
from pages.parts.state import options_of, session
from pages.parts.what_if import what_if


@dataclass(frozen=True)
class Asked:
    """What a form asks for."""

    how: type[Technique]
    step: dict[str, Any]
    recipe: Recipe | None  # None where the options make none
    refused: bool  # whether the page says already why it cannot be run


def step_of(run: str, family: str) -> dict[str, Any] | None:
    """The one step of a run, where it is of this family."""
    with plainly():
        steps = session().record(run).recipe.steps
    return steps[0].model_dump(mode="json") if len(steps) == 1 and steps[0].family == family else None


def as_in_the_run(family: str) -> None:
    """The form of a browser session that begins, as after a refresh, holds what the run in the address was asked for."""
    if f"technique-{family}" in st.session_state or not (run := current_run()) or not (step := step_of(run, family)):
        return
    st.session_state[f"technique-{family}"] = step.pop("technique")
    options_of(st.session_state[f"technique-{family}"]).update(step)


def asked_for(family: str, view: ModelView, key: str) -> Asked:
    """The technique, its options and the recipe that they make; with the forecast, and the button that runs it."""
    as_in_the_run(family)
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
    if run and (explained := step_of(run, family)) and explained["technique"] != step["technique"]:
        how_it_works(TECHNIQUES[explained["technique"]])
        what_lies_ahead(explained, f"{key}-run")
        st.divider()
    how_it_works(asked.how)
    what_lies_ahead(step, key)
    on_real_weights(view, step, recipe, key)
    if "sparsity" in step:
        st.divider()
        overlap(view, step, recipe, key, asked.refused)
    if family == "low-rank":
        st.divider()
        directions(view, step, recipe, key)
    st.divider()
    microscope(view, step, recipe, key)
