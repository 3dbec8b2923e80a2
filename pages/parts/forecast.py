"""What a run would give and cost, before it is run."""

import streamlit as st

from engine.errors import PlainError
from engine.recipe import Recipe
from pages.panels.numbers import megabytes, seconds
from pages.parts.plainly import said
from pages.parts.state import session


def forecast_line(recipe: Recipe) -> None:
    try:
        ahead = session().ask("answers:forecast", recipe=recipe.model_dump(mode="json"))
    except PlainError as error:
        said(str(error))
        return
    st.markdown(
        f"**Forecast**: {megabytes(ahead.size_bytes)} ({ahead.compression:.2f}x smaller), {ahead.bits_per_weight:.2f} bits per weight "
        f"in {ahead.layers} layers, about {seconds(max(1.0, ahead.seconds))}"
    )
