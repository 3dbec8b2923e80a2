"""Steps of the pipeline: cards to edit, move and remove, and a picker for another step."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import streamlit as st
from pydantic import ValidationError

from engine.config.registry import TECHNIQUES
from engine.recipe import MAX_STEPS, order_refused
from pages.widgets.forms.technique_form import pick_technique, technique_form
from pages.widgets.queries import escaped
from pages.widgets.state import options_of

FAMILIES = {
    "quantization": "Quantize",
    "pruning": "Prune",
    "low-rank": "Factorize",
    "distillation": "Distill",
    "training": "Train",
}
LAYER_BY_LAYER = ("quantization", "pruning", "low-rank")  # families that can be tried on one layer


@dataclass
class Link:
    number: int  # names its widgets, at any position
    technique: str
    options: dict[str, Any]

    @property
    def step(self) -> dict[str, Any]:
        return {"technique": self.technique} | self.options

    @property
    def family(self) -> str:
        return TECHNIQUES[self.technique].family


# --- callbacks: called before the page is drawn again -----------------------------------------


def chain() -> list[Link]:
    return st.session_state.setdefault("chain", [])


def add(step: dict[str, Any], place: int | None = None) -> None:
    """Add a step at the given place, otherwise at the last allowed one, and open its options."""
    number = st.session_state["chain-numbers"] = st.session_state.get("chain-numbers", 0) + 1
    options = {name: value for name, value in step.items() if name != "technique"}
    if len(chain()) >= MAX_STEPS:
        return
    places = [place] if place is not None else places_for(step) or [len(chain())]
    chain().insert(places[-1], Link(number, step["technique"], options))
    st.session_state["chain-open"] = number


def replace(steps: list[dict[str, Any]]) -> None:
    """Replace all steps."""
    chain().clear()
    for place, step in enumerate(steps):
        add(step, place)
    st.session_state["chain-open"] = None


def move(link: Link, by: int) -> None:
    place = chain().index(link)
    chain().insert(place + by, chain().pop(place))


def turn(link: Link) -> None:
    """Open or close the options of a step."""
    st.session_state["chain-open"] = None if is_open(link) else link.number


def is_open(link: Link) -> bool:
    return st.session_state.get("chain-open") == link.number


def places_for(step: dict[str, Any]) -> list[int]:
    """Positions at which the step is allowed; none if the recipe has the maximum number of
    steps.
    """
    steps = [link.step for link in chain()]
    if len(steps) >= MAX_STEPS:
        return []
    try:
        *there, new = (
            TECHNIQUES[each["technique"]].model_validate(each) for each in [*steps, step]
        )
    except ValidationError:  # the form shows the error next to the option
        return [len(steps)]
    return [
        place
        for place in range(len(there) + 1)
        if not order_refused([*there[:place], new, *there[place:]])
    ]


# --- display ----------------------------------------------------------------------------------


def steps_in_order() -> list[dict[str, Any]]:
    """Return the steps with their current options."""
    if not chain():
        st.info(
            (
                "No steps yet. Add one here or with “Add to the pipeline” on another page, or "
                "open a recipe."
            ),
            icon=":material/add:",
        )
    for place, link in enumerate(chain()):
        with st.container(border=True, key=f"step-{link.number}"):
            card(place, link)
    return [link.step for link in chain()]


def card(place: int, link: Link) -> None:
    title = st.empty()  # filled in when its options are known
    key, last = f"step-{link.number}", place == len(chain()) - 1
    with st.container(horizontal=True, gap="small"):
        action("Close" if is_open(link) else "Options", "tune", f"{key}-options", turn, link)
        action("Up", "arrow_upward", f"{key}-up", move, link, -1, disabled=not place)
        action("Down", "arrow_downward", f"{key}-down", move, link, 1, disabled=last)
        action("Remove", "close", f"{key}-remove", chain().remove, link)
    if is_open(link):
        technique_form(TECHNIQUES[link.technique], key, link.options)
    title.markdown(f"**{place + 1} · {FAMILIES[link.family]}** · {escaped(label_of(link.step))}")


def action(
    label: str, icon: str, key: str, do: Callable[..., None], *given: Any, disabled: bool = False
) -> None:
    """Draw a small button; four fit in a row, on phones too."""
    st.button(
        label,
        key=key,
        type="tertiary",
        icon=f":material/{icon}:",
        on_click=do,
        args=given,
        disabled=disabled,
    )


def label_of(step: dict[str, Any]) -> str:
    how = TECHNIQUES[step["technique"]]
    try:
        return how.model_validate(step).label()
    except ValidationError:
        return how.title


def one_more() -> None:
    """Draw the picker for another step, with the options set on the technique's page."""
    before = st.session_state.get("chain-family", "quantization")
    family = st.segmented_control(
        "Add a step",
        list(FAMILIES),
        default=before,
        required=True,
        format_func=FAMILIES.get,
        key="pick-chain-family",
    )
    st.session_state["chain-family"] = family
    how = pick_technique(family)
    name = how.model_fields["technique"].default
    step = {"technique": name} | options_of(name)
    places = places_for(step)
    place = places[-1] if places else len(chain())
    icon = {"icon": ":material/add:", "width": "stretch", "key": "chain-add"}
    st.button(
        f"Add as step {place + 1}", on_click=add, args=(step, place), disabled=not places, **icon
    )
    if not places:
        st.caption(escaped(f"{refused_at_the_end(step)}."))


def refused_at_the_end(step: dict[str, Any]) -> str:
    if len(chain()) >= MAX_STEPS:
        return f"A pipeline has at most {MAX_STEPS} steps; remove one first"
    return order_refused(
        [
            TECHNIQUES[each["technique"]].model_validate(each)
            for each in [*(link.step for link in chain()), step]
        ]
    )


def step_looked_at() -> tuple[list[dict[str, Any]], dict[str, Any]] | None:
    """Return the open step and those before it, if all of them can be tried on one layer."""
    place = next((place for place, link in enumerate(chain()) if is_open(link)), None)
    if (
        place is None
        or chain()[place].family == "distillation"
        or any(link.family not in LAYER_BY_LAYER for link in chain()[:place])
    ):
        return None
    return [link.step for link in chain()[:place]], chain()[place].step


def add_to_the_pipeline(step: dict[str, Any], allowed: bool, key: str) -> None:
    """Draw the button that adds the page's step to the pipeline."""
    about = "Adds this step to the Pipeline page, where you can combine several steps into one run."
    look = {
        "icon": ":material/playlist_add:",
        "width": "stretch",
        "help": about,
        "disabled": not allowed or len(chain()) >= MAX_STEPS,
    }
    if st.button("Add to the pipeline", key=f"{key}-pipeline", on_click=add, args=(step,), **look):
        st.switch_page("pipeline.py")
