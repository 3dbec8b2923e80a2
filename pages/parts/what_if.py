"""A live look at one layer: what would this setting do to it? Answered by a worker, apart from the queue of runs."""

from collections.abc import Sequence
from math import prod
from typing import Any

import pandas as pd
import streamlit as st

from engine.catalog import TECHNIQUES
from engine.errors import PlainError
from engine.recipe import Recipe
from engine.results.answers import ModelView, WhatIf
from pages.panels import LEVELS, WEIGHT_HISTOGRAM, WEIGHTS_LEFT, WEIGHTS_OF_FACTORS, WEIGHTS_OF_STRUCTURES, Panel
from pages.panels.numbers import percent
from pages.parts.plainly import SAID_ABOVE, escaped, said
from pages.parts.ranges import chooses_ranges, ranges
from pages.parts.show import show
from pages.parts.state import session
from pages.parts.words import meaning


def what_if(view: ModelView, step: dict, recipe: Recipe | None, key: str, earlier: Sequence[dict] = (), refused: bool = False) -> None:
    """Redrawn with every move of a control. A technique that looks at data sees that of the recipe. ``earlier``: the steps before this one.
    ``refused``: the page says already why nothing can be run.
    """
    st.markdown("#### What if, on one layer")
    layers = layers_for(view, step)
    layer = st.selectbox("Layer to look at", layers.name.tolist(), key=f"{key}-what-if-layer", help="Type to search.")
    try:
        answer = session().ask("answers:what_if", timeout=120, **looked_at(view, step, recipe, key), earlier=list(earlier))
    except PlainError as error:
        st.caption(SAID_ABOVE) if refused else said(str(error))
        return
    numbers(answer)
    whole = int(layers.parameters[layers.name == layer].iloc[0])
    if answer.weights < whole:
        st.caption(f"Judged on the layer's first {answer.weights:,} of {whole:,} weights, to keep up with the controls; a run judges them all.")
    show(histogram_for(step), answer.histogram, f"{key}-what-if", levels=answer.levels)
    if answer.row.note:
        st.caption(escaped(answer.row.note[:1].upper() + answer.row.note[1:] + "."))
    if not answer.levels.empty and st.toggle("Show how many weights sit on each level", key=f"{key}-what-if-occupancy"):
        show(LEVELS, answer.levels, f"{key}-what-if-levels")
    if chooses_ranges(step):
        ranges(view.reference, layer, step, data_of(recipe), f"{key}-what-if")


def histogram_for(step: dict) -> Panel:
    """With words that fit the family; levels belong to what rounds."""
    how = TECHNIQUES[step["technique"]]
    if how.family == "pruning":
        return WEIGHTS_LEFT if how.leaves == "zeros" else WEIGHTS_OF_STRUCTURES
    return WEIGHTS_OF_FACTORS if how.family == "low-rank" and how.leaves == "factors" else WEIGHT_HISTOGRAM


def layers_for(view: ModelView, step: dict) -> pd.DataFrame:
    """Those that may be looked at: of the kinds that the technique treats, where the model has any."""
    layers = view.layers[(view.layers.kind != "embedding") & (view.layers.tied_to == "")]
    mine = layers[layers.kind.isin(TECHNIQUES[step["technique"]].treats)]
    return layers if mine.empty else mine


def looked_at(view: ModelView, step: dict, recipe: Recipe | None, key: str) -> dict[str, Any]:
    """What every question about the chosen layer begins with."""
    return {"model": view.reference, "layer": st.session_state[f"{key}-what-if-layer"], "step": step, "measured": data_of(recipe)}


def data_of(recipe: Recipe | None) -> dict:
    return recipe.model_dump(mode="json", include={"task", "calibration"}) if recipe else {}


def numbers(answer: WhatIf) -> None:
    error, second, bits = st.columns(3)
    error.metric("Relative error", percent(answer.row.relative_error), help=meaning("relative_error"))
    if answer.row.original_shape:  # whole rows and columns go
        second.metric("Weights left", percent(answer.row.parameters / prod(answer.row.original_shape)), help=meaning("kept"))
    elif answer.row.output_error == answer.row.output_error:  # not NaN: a technique that looks at data
        second.metric("Output error", percent(answer.row.output_error), help=meaning("output_error"))
    else:
        second.metric("Signal to noise", f"{answer.row.sqnr_db:.1f} dB", help=meaning("sqnr_db"))
    bits.metric("Bits per weight", f"{answer.row.bits_per_weight:.2f}", help=meaning("bits_per_weight"))
