"""Page of a family: form, forecast, run, results and explanation."""

from dataclasses import dataclass
from typing import Any

import streamlit as st

from engine.config.registry import TECHNIQUES
from engine.config.technique import Technique
from engine.recipe import Recipe
from engine.results.schema.query_results import ModelView
from pages.widgets.forms.forecast import forecast_line
from pages.widgets.forms.measure_form import measured_recipe
from pages.widgets.forms.technique_form import pick_technique, technique_form
from pages.widgets.layers.explain import how_it_works, on_real_weights, what_lies_ahead
from pages.widgets.layers.inspect_weight import microscope
from pages.widgets.layers.overlap import overlap
from pages.widgets.layers.rank_planner import directions
from pages.widgets.layers.what_if import what_if
from pages.widgets.loading import skeleton
from pages.widgets.model_picker import facts, opened_model
from pages.widgets.queries import stop_on_error
from pages.widgets.recipes.pipeline_editor import add_to_the_pipeline
from pages.widgets.runs.run_card import current_run, run_button, run_card
from pages.widgets.state import options_of, session

FORECAST_HEIGHT, PANEL_HEIGHT = 190, 480  # pixels, with the buttons below the forecast


@dataclass(frozen=True)
class Asked:
    """Choices in the form."""

    how: type[Technique]
    step: dict[str, Any]
    recipe: Recipe | None  # None if the options are not allowed
    refused: bool  # the page already shows why it cannot run


def step_of(run: str, family: str) -> dict[str, Any] | None:
    """Return the only step of a run if it belongs to this family."""
    with stop_on_error():
        steps = session().record(run).recipe.steps
    return (
        steps[0].model_dump(mode="json") if len(steps) == 1 and steps[0].family == family else None
    )


def as_in_the_run(family: str) -> None:
    """Fill the form with the options of the run in the address when a browser session starts."""
    if (
        f"technique-{family}" in st.session_state
        or not (run := current_run())
        or not (step := step_of(run, family))
    ):
        return
    st.session_state[f"technique-{family}"] = step.pop("technique")
    options_of(st.session_state[f"technique-{family}"]).update(step)


def asked_for(family: str, view: ModelView, key: str) -> Asked:
    """Draw the form, the forecast and the run button; return the choices."""
    as_in_the_run(family)
    how = pick_technique(family)
    step = technique_form(how, key)
    recipe = measured_recipe([step], view)
    with skeleton(FORECAST_HEIGHT):
        refused = recipe is None or not forecast_line(recipe)
    run_button(None if refused else recipe, key)
    add_to_the_pipeline(step, recipe is not None, key)
    return Asked(how, step, recipe, refused)


def technique_page(title: str, family: str, key: str) -> None:
    st.title(title)
    view = opened_model()
    st.markdown(facts(view))
    controls, live = st.columns([2, 3], gap="medium")
    form, effect = controls.container(border=True), live.container(border=True)
    with effect, skeleton(PANEL_HEIGHT), form:
        asked = asked_for(family, view, key)
    step, recipe = asked.step, asked.recipe
    with effect:
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
    if "mask-overlap" in asked.how.live_views:
        st.divider()
        overlap(view, step, recipe, key, asked.refused)
    if family == "low-rank":
        st.divider()
        directions(view, step, recipe, key)
    st.divider()
    microscope(view, step, recipe, key)
