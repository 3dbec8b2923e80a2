"""What-if view of one layer, answered by a worker independently of the queue of runs."""

from collections.abc import Sequence
from math import prod
from typing import Any

import pandas as pd
import streamlit as st

from engine.config.registry import TECHNIQUES
from engine.errors import PlainError
from engine.queries import WhatIfQuery
from engine.recipe import Recipe
from engine.results.schema.query_results import LayerPreview, ModelView
from pages.formatting.numbers import percent
from pages.panels import (
    LEVELS,
    WEIGHT_HISTOGRAM,
    WEIGHTS_LEFT,
    WEIGHTS_OF_FACTORS,
    WEIGHTS_OF_STRUCTURES,
    Panel,
)
from pages.widgets.chart_card import show_panel
from pages.widgets.glossary_help import meaning
from pages.widgets.layers.ranges import has_static_ranges, observer_ranges
from pages.widgets.loading import skeleton
from pages.widgets.queries import NOT_AVAILABLE, literal_markdown, show_error
from pages.widgets.state import ask


def what_if(
    view: ModelView,
    step: dict[str, Any],
    recipe: Recipe | None,
    key: str,
    earlier: Sequence[dict[str, Any]] = (),
    error_shown: bool = False,
) -> None:
    """Draw the effect of the settings on one layer, again after every change.

    Calibrated techniques use the recipe's calibration data. ``earlier`` are the steps before this
    one; ``error_shown``: the page already shows why nothing can run.
    """
    st.markdown("#### Effect on one layer")
    layers = compatible_layers(view, step)
    layer = st.selectbox(
        "Layer", layers.name.tolist(), key=f"{key}-what-if-layer", help="Type to search."
    )
    try:
        with skeleton(400):
            shown = shown_recipe(view.reference, [*earlier, step], recipe)
            alone = shown_recipe(view.reference, [step], recipe)
            answer = ask(WhatIfQuery(shown, layer), timeout=120)
    except PlainError as error:
        st.caption(NOT_AVAILABLE) if error_shown else show_error(str(error))
        return
    effect_metrics(answer)
    parameters = int(layers.parameters[layers.name == layer].iloc[0])
    if answer.weights < parameters:
        st.caption(
            f"Computed from the first {answer.weights:,} of {parameters:,} weights for speed; a "
            "run uses all of them."
        )
    show_panel(histogram_panel(step), answer.histogram, f"{key}-what-if", levels=answer.levels)
    if answer.row.note:
        st.caption(literal_markdown(answer.row.note[:1].upper() + answer.row.note[1:] + "."))
    if not answer.levels.empty and st.toggle(
        "Show the number of weights per level", key=f"{key}-what-if-occupancy"
    ):
        show_panel(LEVELS, answer.levels, f"{key}-what-if-levels")
    if has_static_ranges(step):
        observer_ranges(alone, layer, f"{key}-what-if")


def histogram_panel(step: dict[str, Any]) -> Panel:
    """Histogram of the weights, with the question for what the technique produces."""
    panels = {
        "zeros": WEIGHTS_LEFT,
        "fewer": WEIGHTS_OF_STRUCTURES,
        "factors": WEIGHTS_OF_FACTORS,
    }
    return panels.get(TECHNIQUES[step["technique"]].produces, WEIGHT_HISTOGRAM)


def compatible_layers(view: ModelView, step: dict[str, Any]) -> pd.DataFrame:
    """Layers of the kinds that the technique accepts, or all if the model has none."""
    layers = view.layers[(view.layers.kind != "embedding") & (view.layers.tied_to == "")]
    supported = layers[layers.kind.isin(TECHNIQUES[step["technique"]].layer_kinds)]
    return layers if supported.empty else supported


def chosen_layer(key: str) -> str:
    return st.session_state[f"{key}-what-if-layer"]


def shown_recipe(
    model: str,
    steps: Sequence[dict[str, Any]],
    recipe: Recipe | None,
    parts: frozenset[str] = frozenset({"task", "calibration"}),
) -> Recipe:
    """Recipe of a live question: these steps, with the parts of the page's recipe that matter to
    it.

    Raises PlainError if an option is not allowed.
    """
    data = recipe.model_dump(mode="json", include=set(parts)) if recipe else {}
    return Recipe.from_dict({"model": model, "steps": list(steps), **data})


def effect_metrics(answer: LayerPreview) -> None:
    error, second, bits = st.columns(3)
    error.metric(
        "Relative error", percent(answer.row.relative_error), help=meaning("relative_error")
    )
    if answer.row.original_shape:  # structures are removed
        second.metric(
            "Parameters kept",
            percent(answer.row.parameters / prod(answer.row.original_shape)),
            help=meaning("kept_parameters"),
        )
    elif answer.row.output_error == answer.row.output_error:  # not NaN: a calibrated technique
        second.metric(
            "Output error", percent(answer.row.output_error), help=meaning("output_error")
        )
    else:
        second.metric("Signal to noise", f"{answer.row.sqnr_db:.1f} dB", help=meaning("sqnr_db"))
    bits.metric(
        "Bits per weight", f"{answer.row.bits_per_weight:.2f}", help=meaning("bits_per_weight")
    )
