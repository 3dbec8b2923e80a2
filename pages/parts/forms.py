"""Forms made from technique configs: the schema says which widget, which bounds, which help."""

from typing import Any

import streamlit as st

from engine.catalog import TECHNIQUES
from engine.catalog.technique import Technique
from pages.parts.state import options_of

FITS = 36  # letters of a title


def pick_technique(family: str) -> type[Technique]:
    """One technique of a family; remembered."""
    names = by_kind(family)
    before = st.session_state.get(f"technique-{family}", names[0])
    titles = {name: short(TECHNIQUES[name].title) for name in names}
    chosen = st.selectbox("Technique", names, names.index(before), format_func=titles.get, key=f"pick-{family}", help="Type to search.")
    st.session_state[f"technique-{family}"] = chosen
    st.caption(f"**{TECHNIQUES[chosen].kind}**: {TECHNIQUES[chosen].summary}")
    return TECHNIQUES[chosen]


def short(title: str) -> str:
    """Without its brackets where it would be cut in a window of 1280 pixels."""
    return title if len(title) <= FITS else title.partition(" (")[0]


def by_kind(family: str) -> list[str]:
    """Techniques of one kind stand together, kinds in the catalog's order."""
    names = [name for name, how in TECHNIQUES.items() if how.family == family]
    kinds = list(dict.fromkeys(TECHNIQUES[name].kind for name in names))
    return sorted(names, key=lambda name: kinds.index(TECHNIQUES[name].kind))


def technique_form(how: type[Technique], key: str = "form", chosen: dict[str, Any] | None = None) -> dict[str, Any]:
    """Every option that has a meaning beside the others, as a step of a recipe. Remembered in ``chosen``, or with the technique."""
    name, fields = how.model_fields["technique"].default, how.model_json_schema()["properties"]
    chosen = options_of(name) if chosen is None else chosen
    values = {option: chosen.get(option, field.get("default")) for option, field in fields.items() if option != "technique"}
    plain = [option for option in values if not fields[option]["advanced"]]
    for option in plain:
        values[option] = drawn(fields[option], option, values, f"{key}-{name}")
    advanced = [option for option in values if option not in plain]
    if advanced:
        with st.expander("More options"):
            for option in advanced:
                values[option] = drawn(fields[option], option, values, f"{key}-{name}")
    chosen.update(values)
    return {"technique": name} | values


def drawn(field: dict, option: str, values: dict[str, Any], key: str) -> Any:
    """The widget a field's type asks for, or its value unchanged where the other options leave it no meaning."""
    idle = any(values.get(other) in barred for other, barred in field["unless"].items())
    if idle or any(values.get(other) not in allowed for other, allowed in field["when"].items()):
        return values[option]
    return widget(field, values[option], f"{key}-{option}")


def widget(field: dict, value: Any, key: str) -> Any:
    shared = {"label": field["title"], "help": field["description"], "key": key}
    if "enum" in field:
        words = field["words"]
        if field.get("type") == "integer":
            return st.select_slider(options=field["enum"], value=value, **shared)
        return st.selectbox(options=field["enum"], index=field["enum"].index(value), format_func=lambda choice: words.get(choice, choice), **shared)
    if field["type"] == "string":
        words = field["words"]
        options = list(dict.fromkeys([*field["choices"], value]))
        return st.selectbox(
            options=options, index=options.index(value), format_func=lambda choice: words.get(choice, choice), accept_new_options=True, **shared
        )
    if field["type"] == "array":
        return st.multiselect(options=field["items"]["enum"], default=value, **shared)
    if field["type"] == "object":
        return st.text_area(value=value if isinstance(value, str) else "\n".join(f"'{name}': {each}" for name, each in value.items()), **shared)
    if field["type"] == "boolean":
        return st.toggle(value=value, **shared)
    if field["stops"]:
        return st.select_slider(options=sorted({*field["stops"], value}), value=value, **shared)
    kind = int if field["type"] == "integer" else float  # a slider wants one type throughout
    return st.slider(min_value=kind(field["minimum"]), max_value=kind(field["maximum"]), value=kind(value), **shared)
