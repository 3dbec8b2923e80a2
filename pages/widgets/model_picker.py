"""Choice of the model, in the sidebar."""

from pathlib import Path

import streamlit as st

from engine.queries import ModelQuery
from engine.recipe.model_names import BUNDLED_MODELS
from engine.results.schema.query_results import ModelView
from pages.formatting.numbers import count, megabytes
from pages.widgets.loading import skeleton
from pages.widgets.queries import literal_markdown, stop_on_error
from pages.widgets.state import ask, chosen_model

OTHER = "Another model…"

PAGE_HEIGHT = 400  # pixels, of the placeholder while a model is opened


def choose_model(reference: str) -> None:
    """Select a model before the page is drawn again (``on_click``), because a widget's state cannot
    be set afterwards.
    """
    bundled = reference in [bundled.reference for bundled in BUNDLED_MODELS.values()]
    chosen = {
        "model": reference,
        "model-choice": reference if bundled else OTHER,
        "model-text": "" if bundled else reference,
    }
    for name, value in chosen.items():
        st.session_state[name] = value


def pick_model() -> None:
    """Let the user choose a bundled model, a Hub id or a directory."""
    current, names = chosen_model(), [bundled.reference for bundled in BUNDLED_MODELS.values()]
    titles = {
        bundled.reference: f"{bundled.title} ({bundled.name})"
        for bundled in BUNDLED_MODELS.values()
    }
    st.session_state.setdefault("model-choice", current if current in names else OTHER)
    chosen = st.selectbox(
        "Model",
        [*names, OTHER],
        format_func=lambda name: titles.get(name, name),
        key="model-choice",
    )
    if chosen == OTHER:
        st.session_state.setdefault("model-text", "" if current in names else current)
        given = st.text_input(
            "Hub id or directory", placeholder="HuggingFaceTB/SmolLM2-135M", key="model-text"
        )
        chosen = given.strip() or current
        st.caption(
            "Safetensors only. Add `@revision` to pin a version. Models load on this "
            "computer; nothing is uploaded."
        )
    st.session_state["model"] = st.query_params["model"] = chosen


@st.cache_data(max_entries=16, show_spinner="Opening the model…", ttl=60)
def model_view(reference: str) -> ModelView:
    return ask(ModelQuery(reference), timeout=600)


def opened_model() -> ModelView:
    """Return the chosen model; the page ends with an error if it cannot be opened."""
    with stop_on_error(), skeleton(PAGE_HEIGHT):
        return model_view(chosen_model())


def model_summary(view: ModelView) -> str:
    """Markdown such as "docs-lm · 4.0 M parameters · 8.0 MB"."""
    name = view.reference.removeprefix("bundled:")
    return (
        f"**{literal_markdown(name)}** · {literal_markdown(view.architecture)} · "
        f"{count(view.parameters)} parameters · {megabytes(view.size_bytes)}"
    )


def bits_line(view: ModelView) -> str:
    """Text such as "16.00 bits per parameter of the whole file, 16.00 per weight of its layers"."""
    layers = (
        f"{view.bits_per_weight:.2f} per "
        f"{'compressed weight' if view.compressed else 'weight of its layers'}"
    )
    return f"{view.bits_per_parameter:.2f} bits per parameter of the whole file, {layers}"


def short_name(reference: str) -> str:
    """A bundled model's name, a Hub id, or the last part of a directory."""
    return (
        reference.removeprefix("bundled:")
        if not Path(reference).is_absolute()
        else Path(reference).name
    )
