"""Forms generated from technique configs: widgets, bounds and help come from the schema."""

from typing import Any

import streamlit as st

from engine.config.registry import TECHNIQUES
from engine.config.technique import Technique
from pages.widgets.state import technique_options

MAX_TITLE_LENGTH = 36  # characters of a title


def pick_technique(family: str) -> type[Technique]:
    """Let the user choose a technique of a family; the choice is remembered."""
    names = techniques_by_kind(family)
    before = st.session_state.get(f"technique-{family}", names[0])
    titles = {name: short_title(TECHNIQUES[name]) for name in names}
    chosen = st.selectbox(
        "Technique",
        names,
        names.index(before),
        format_func=titles.get,
        key=f"pick-{family}",
        help="Type to search.",
    )
    st.session_state[f"technique-{family}"] = chosen
    st.caption(f"**{TECHNIQUES[chosen].kind}**: {TECHNIQUES[chosen].summary}")
    return TECHNIQUES[chosen]


def short_title(config: type[Technique]) -> str:
    """Title of a technique that is not truncated at a window width of 1280 pixels."""
    return config.title if len(config.title) <= MAX_TITLE_LENGTH else config.brief or config.title


def techniques_by_kind(family: str) -> list[str]:
    """Names of a family's techniques, grouped by kind in the catalog's order."""
    names = [name for name, config in TECHNIQUES.items() if config.family == family]
    kinds = list(dict.fromkeys(TECHNIQUES[name].kind for name in names))
    return sorted(names, key=lambda name: kinds.index(TECHNIQUES[name].kind))


def technique_form(
    config: type[Technique], key: str = "form", chosen: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Draw the options that apply and return the recipe step.

    Options are remembered in ``chosen``, or with the technique.
    """
    name, fields = (
        config.model_fields["technique"].default,
        config.model_json_schema()["properties"],
    )
    chosen = technique_options(name) if chosen is None else chosen
    values = {
        option: chosen.get(option, field.get("default"))
        for option, field in fields.items()
        if option != "technique"
    }
    plain = [option for option in values if not fields[option]["advanced"]]
    for option in plain:
        values[option] = option_widget(fields[option], option, values, f"{key}-{name}")
    advanced = [option for option in values if option not in plain]
    if advanced:
        with st.expander("More options"):
            for option in advanced:
                values[option] = option_widget(fields[option], option, values, f"{key}-{name}")
    chosen.update(values)
    return {"technique": name} | values


def option_widget(field: dict[str, Any], option: str, values: dict[str, Any], key: str) -> Any:
    """Draw an option's widget, or return its value unchanged if the other options make it
    irrelevant.
    """
    idle = any(values.get(other) in barred for other, barred in field["unless"].items())
    if idle or any(values.get(other) not in allowed for other, allowed in field["when"].items()):
        return values[option]
    return input_widget(field, values[option], f"{key}-{option}")


def input_widget(field: dict[str, Any], value: Any, key: str) -> Any:
    shared = {"label": field["title"], "help": field["description"], "key": key}
    if "enum" in field:
        words = field["words"]
        if field.get("type") == "integer":
            return st.select_slider(options=field["enum"], value=value, **shared)
        return st.selectbox(
            options=field["enum"],
            index=field["enum"].index(value),
            format_func=lambda choice: words.get(choice, choice),
            **shared,
        )
    if field["type"] == "string":
        words = field["words"]
        options = list(dict.fromkeys([*field["choices"], value]))
        return st.selectbox(
            options=options,
            index=options.index(value),
            format_func=lambda choice: words.get(choice, choice),
            accept_new_options=True,
            **shared,
        )
    if field["type"] == "array":
        return st.multiselect(options=field["items"]["enum"], default=value, **shared)
    if field["type"] == "object":
        return st.text_area(
            value=value
            if isinstance(value, str)
            else "\n".join(f"'{name}': {label}" for name, label in value.items()),
            **shared,
        )
    if field["type"] == "boolean":
        return st.toggle(value=value, **shared)
    if field["stops"]:
        return st.select_slider(options=sorted({*field["stops"], value}), value=value, **shared)
    kind = int if field["type"] == "integer" else float  # a slider needs values of one type
    return st.slider(
        min_value=kind(field["minimum"]),
        max_value=kind(field["maximum"]),
        value=kind(value),
        **shared,
    )
