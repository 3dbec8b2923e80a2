"""Page of a family: form, forecast, run, results and explanation."""

from dataclasses import dataclass
from typing import Any

import streamlit as st

from engine.config.registry import TECHNIQUES
from engine.config.technique import Technique
from engine.recipe import Recipe
from engine.results.schema.query_results import ModelView
from pages.widgets.forms.forecast import forecast_line
from pages.widgets.forms.measure_form import recipe_form
from pages.widgets.forms.technique_form import pick_technique, technique_form
from pages.widgets.layers.explain import how_it_works, layer_explanation, schedule_preview
from pages.widgets.layers.inspect_weight import weight_inspector
from pages.widgets.layers.overlap import method_overlap
from pages.widgets.layers.rank_planner import rank_planner
from pages.widgets.layers.what_if import what_if
from pages.widgets.loading import skeleton
from pages.widgets.model_picker import model_summary, opened_model
from pages.widgets.queries import stop_on_error
from pages.widgets.recipes.pipeline_editor import add_to_pipeline_button
from pages.widgets.runs.run_card import current_run, run_button, run_card
from pages.widgets.state import session, technique_options

FORECAST_HEIGHT, PANEL_HEIGHT = 190, 480  # pixels, with the buttons below the forecast


@dataclass(frozen=True)
class FormChoices:
    """Choices in the form."""

    config: type[Technique]
    step: dict[str, Any]
    recipe: Recipe | None  # None if the options are not allowed
    error_shown: bool  # the page already shows why it cannot run


def single_step(run: str, family: str) -> dict[str, Any] | None:
    """Return the only step of a run if it belongs to this family."""
    with stop_on_error():
        steps = session().store.record(run).recipe.steps
    return (
        steps[0].model_dump(mode="json") if len(steps) == 1 and steps[0].family == family else None
    )


def fill_form_from_run(family: str) -> None:
    """Fill the form with the options of the run in the address when a browser session starts."""
    if (
        f"technique-{family}" in st.session_state
        or not (run := current_run())
        or not (step := single_step(run, family))
    ):
        return
    st.session_state[f"technique-{family}"] = step.pop("technique")
    technique_options(st.session_state[f"technique-{family}"]).update(step)


def choice_form(family: str, view: ModelView, key: str) -> FormChoices:
    """Draw the form, the forecast and the run button; return the choices."""
    fill_form_from_run(family)
    config = pick_technique(family)
    step = technique_form(config, key)
    recipe = recipe_form([step], view)
    with skeleton(FORECAST_HEIGHT):
        refused = recipe is None or not forecast_line(recipe)
    run_button(None if refused else recipe, key)
    add_to_pipeline_button(step, recipe is not None, key)
    return FormChoices(config, step, recipe, refused)


def technique_page(title: str, family: str, key: str) -> None:
    st.title(title)
    view = opened_model()
    st.markdown(model_summary(view))
    controls, live = st.columns([2, 3], gap="medium")
    form, effect = controls.container(border=True), live.container(border=True)
    with effect, skeleton(PANEL_HEIGHT), form:
        asked = choice_form(family, view, key)
    step, recipe = asked.step, asked.recipe
    with effect:
        what_if(view, step, recipe, key, error_shown=asked.error_shown)
    if run := current_run():
        st.divider()
        run_card(run, key)
    st.divider()
    if (
        run
        and (explained := single_step(run, family))
        and explained["technique"] != step["technique"]
    ):
        how_it_works(TECHNIQUES[explained["technique"]])
        schedule_preview(explained, f"{key}-run")
        st.divider()
    how_it_works(asked.config)
    schedule_preview(step, key)
    layer_explanation(view, step, recipe, key)
    if "mask-overlap" in asked.config.live_views:
        st.divider()
        method_overlap(view, step, recipe, key, asked.error_shown)
    if "singular-values" in asked.config.live_views:
        st.divider()
        rank_planner(view, step, recipe, key)
    st.divider()
    weight_inspector(view, step, recipe, key)
