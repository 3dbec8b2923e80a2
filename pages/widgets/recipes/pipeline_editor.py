"""Steps of the pipeline: cards to edit, move and remove, and a picker for another step."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import streamlit as st
from pydantic import ValidationError

from engine.config.registry import TECHNIQUES
from engine.config.technique import Technique
from engine.recipe import MAX_STEPS, step_order_error
from pages.widgets.forms.technique_form import pick_technique, technique_form
from pages.widgets.queries import literal_markdown
from pages.widgets.state import technique_options

FAMILIES = {
    "quantization": "Quantize",
    "pruning": "Prune",
    "low-rank": "Factorize",
    "distillation": "Distill",
    "training": "Train",
}


@dataclass
class StepEntry:
    number: int  # names its widgets, at any position
    technique: str
    options: dict[str, Any]

    @property
    def step(self) -> dict[str, Any]:
        return {"technique": self.technique} | self.options

    @property
    def config(self) -> type[Technique]:
        return TECHNIQUES[self.technique]


# --- callbacks: called before the page is drawn again -----------------------------------------


def step_entries() -> list[StepEntry]:
    return st.session_state.setdefault("chain", [])


def add_step(step: dict[str, Any], position: int | None = None) -> None:
    """Add a step at the given place, otherwise at the last allowed one, and open its options."""
    number = st.session_state["chain-numbers"] = st.session_state.get("chain-numbers", 0) + 1
    options = {name: value for name, value in step.items() if name != "technique"}
    if len(step_entries()) >= MAX_STEPS:
        return
    positions = (
        [position] if position is not None else allowed_positions(step) or [len(step_entries())]
    )
    step_entries().insert(positions[-1], StepEntry(number, step["technique"], options))
    st.session_state["chain-open"] = number


def replace_steps(steps: list[dict[str, Any]]) -> None:
    """Replace all steps."""
    step_entries().clear()
    for position, step in enumerate(steps):
        add_step(step, position)
    st.session_state["chain-open"] = None


def move_step(entry: StepEntry, by: int) -> None:
    position = step_entries().index(entry)
    step_entries().insert(position + by, step_entries().pop(position))


def toggle_options(entry: StepEntry) -> None:
    """Open or close the options of a step."""
    st.session_state["chain-open"] = None if is_open(entry) else entry.number


def is_open(entry: StepEntry) -> bool:
    return st.session_state.get("chain-open") == entry.number


def allowed_positions(step: dict[str, Any]) -> list[int]:
    """Positions at which the step is allowed; none if the recipe has the maximum number of
    steps.
    """
    steps = [link.step for link in step_entries()]
    if len(steps) >= MAX_STEPS:
        return []
    try:
        *earlier_steps, new = (
            TECHNIQUES[fields["technique"]].model_validate(fields) for fields in [*steps, step]
        )
    except ValidationError:  # the form shows the error next to the option
        return [len(steps)]
    return [
        position
        for position in range(len(earlier_steps) + 1)
        if not step_order_error([*earlier_steps[:position], new, *earlier_steps[position:]])
    ]


# --- display ----------------------------------------------------------------------------------


def edited_steps() -> list[dict[str, Any]]:
    """Return the steps with their current options."""
    if not step_entries():
        st.info(
            (
                "No steps yet. Add one here or with “Add to the pipeline” on another page, or "
                "open a recipe."
            ),
            icon=":material/add:",
        )
    for position, link in enumerate(step_entries()):
        with st.container(border=True, key=f"step-{link.number}"):
            step_card(position, link)
    return [link.step for link in step_entries()]


def step_card(position: int, entry: StepEntry) -> None:
    title = st.empty()  # filled in when its options are known
    key, last = f"step-{entry.number}", position == len(step_entries()) - 1
    with st.container(horizontal=True, gap="small"):
        small_button(
            "Close" if is_open(entry) else "Options",
            "tune",
            f"{key}-options",
            toggle_options,
            entry,
        )
        small_button("Up", "arrow_upward", f"{key}-up", move_step, entry, -1, disabled=not position)
        small_button("Down", "arrow_downward", f"{key}-down", move_step, entry, 1, disabled=last)
        small_button("Remove", "close", f"{key}-remove", step_entries().remove, entry)
    if is_open(entry):
        technique_form(TECHNIQUES[entry.technique], key, entry.options)
    title.markdown(
        f"**{position + 1} · {FAMILIES[entry.config.family]}** · "
        f"{literal_markdown(step_label(entry.step))}"
    )


def small_button(
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


def step_label(step: dict[str, Any]) -> str:
    config = TECHNIQUES[step["technique"]]
    try:
        return config.model_validate(step).label()
    except ValidationError:
        return config.title


def step_picker() -> None:
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
    config = pick_technique(family)
    name = config.model_fields["technique"].default
    step = {"technique": name} | technique_options(name)
    positions = allowed_positions(step)
    position = positions[-1] if positions else len(step_entries())
    icon = {"icon": ":material/add:", "width": "stretch", "key": "chain-add"}
    st.button(
        f"Add as step {position + 1}",
        on_click=add_step,
        args=(step, position),
        disabled=not positions,
        **icon,
    )
    if not positions:
        st.caption(literal_markdown(f"{append_error(step)}."))


def append_error(step: dict[str, Any]) -> str:
    if len(step_entries()) >= MAX_STEPS:
        return f"A pipeline has at most {MAX_STEPS} steps; remove one first"
    return step_order_error(
        [
            TECHNIQUES[earlier["technique"]].model_validate(earlier)
            for earlier in [*(link.step for link in step_entries()), step]
        ]
    )


def open_step() -> tuple[list[dict[str, Any]], dict[str, Any]] | None:
    """Return the open step and those before it, if all of them can be tried on one layer."""
    position = next(
        (position for position, link in enumerate(step_entries()) if is_open(link)), None
    )
    if position is None:
        return None
    earlier, entry = step_entries()[:position], step_entries()[position]
    if entry.config.layer_previews == "none" or any(
        before.config.layer_previews != "any-step" for before in earlier
    ):
        return None
    return [before.step for before in earlier], entry.step


def add_to_pipeline_button(step: dict[str, Any], allowed: bool, key: str) -> None:
    """Draw the button that adds the page's step to the pipeline."""
    about = "Adds this step to the Pipeline page, where you can combine several steps into one run."
    options = {
        "icon": ":material/playlist_add:",
        "width": "stretch",
        "help": about,
        "disabled": not allowed or len(step_entries()) >= MAX_STEPS,
    }
    if st.button(
        "Add to the pipeline", key=f"{key}-pipeline", on_click=add_step, args=(step,), **options
    ):
        st.switch_page("pipeline.py")
