"""Which model everything is about: chosen in the sidebar, said at the top of every page."""

from pathlib import Path

import streamlit as st

from engine.catalog.models import BUNDLED
from engine.results.answers import ModelView
from pages.panels.numbers import count, megabytes
from pages.parts.plainly import escaped, plainly
from pages.parts.state import model, session

OTHER = "Another model…"


def choose_model(reference: str) -> None:
    """Called before the page is drawn anew (``on_click``): a widget's state cannot be set once it stands."""
    bundled = reference in [bundled.reference for bundled in BUNDLED.values()]
    chosen = {"model": reference, "model-choice": reference if bundled else OTHER, "model-text": "" if bundled else reference}
    for name, value in chosen.items():
        st.session_state[name] = value


def pick_model() -> None:
    """Bundled models by name, or any Hub id or directory."""
    current, names = model(), [bundled.reference for bundled in BUNDLED.values()]
    titles = {bundled.reference: f"{bundled.title} ({bundled.name})" for bundled in BUNDLED.values()}
    st.session_state.setdefault("model-choice", current if current in names else OTHER)
    chosen = st.selectbox("Model", [*names, OTHER], format_func=lambda name: titles.get(name, name), key="model-choice")
    if chosen == OTHER:
        st.session_state.setdefault("model-text", "" if current in names else current)
        given = st.text_input("Hub id or directory", placeholder="HuggingFaceTB/SmolLM2-135M", key="model-text")
        chosen = given.strip() or current
        st.caption("Safetensors only. Add `@revision` to pin a version. Models load on this computer; nothing is uploaded.")
    st.session_state["model"] = st.query_params["model"] = chosen


@st.cache_data(max_entries=16, show_spinner="Opening the model…", ttl=60)
def view_of(reference: str) -> ModelView:
    return session().ask("answers:model_view", timeout=600, model=reference)


def opened_model() -> ModelView:
    """The chosen model; the page ends with a sentence where it cannot be opened."""
    with plainly():
        return view_of(model())


def facts(view: ModelView) -> str:
    """Such as "docs-lm · 4.0 M weights · 8.0 MB"."""
    name = view.reference.removeprefix("bundled:")
    return f"**{escaped(name)}** · {view.architecture} · {count(view.parameters)} weights · {megabytes(view.size_bytes)}"


def short_name(reference: str) -> str:
    """A bundled model's name, a Hub id, or a directory's last part."""
    return reference.removeprefix("bundled:") if not Path(reference).is_absolute() else Path(reference).name
