"""Single weights: a clickable section of the layer, and details of one weight."""

from dataclasses import replace
from functools import partial
from typing import Any

import streamlit as st

from engine.errors import PlainError
from engine.queries import WeightMapQuery, WeightQuery
from engine.recipe import Recipe
from engine.results.schema.explanations import SIDE, WeightCode, WeightView
from engine.results.schema.query_results import ModelView
from pages.panels import GROUP_ROUNDING, WEIGHT_MAP
from pages.panels.weights.weight_map import VALUE_NAMES
from pages.widgets.chart_card import show_panel
from pages.widgets.layers.what_if import chosen_layer, shown_recipe
from pages.widgets.queries import NOT_AVAILABLE, cached_ask

NEIGHBORS = replace(GROUP_ROUNDING, question="Which weights share its scale or are next to it?")
MOVES = {
    "Left": (0, -SIDE, ":material/arrow_back:"),
    "Right": (0, SIDE, ":material/arrow_forward:"),
    "Up": (-SIDE, 0, ":material/arrow_upward:"),
    "Down": (SIDE, 0, ":material/arrow_downward:"),
}


def weight_inspector(
    view: ModelView, step: dict[str, Any], recipe: Recipe | None, key: str
) -> None:
    """Draw the view if the user opens it; it recomputes at every change of an option."""
    st.markdown("### Individual weights")
    if st.toggle("Inspect individual weights", key=f"{key}-microscope"):
        inspector_view(view, step, recipe, chosen_layer(key), f"{key}-weight")


@st.fragment
def inspector_view(
    view: ModelView, step: dict[str, Any], recipe: Recipe | None, layer: str, key: str
) -> None:
    try:
        shown = shown_recipe(view.reference, [step], recipe)
        shape = cached_ask(WeightMapQuery(shown, layer), view.revision).shape
        row, column = inspected_position(key, shape)
        corner = row // SIDE * SIDE, column // SIDE * SIDE
        piece = cached_ask(WeightMapQuery(shown, layer, *corner), view.revision)
        weight = cached_ask(WeightQuery(shown, layer, row, column), view.revision)
    except PlainError:
        st.caption(NOT_AVAILABLE)
        return
    colors = navigation(key, piece.shape)
    left, right = st.columns(2, gap="large")
    with left:
        click = {"on_select": partial(store_clicked_position, key), "selection_mode": "points"}
        show_panel(WEIGHT_MAP, piece.table, f"{key}-map", click, shown=colors, chosen=(row, column))
    with right:
        weight_details(weight, key)


def inspected_position(key: str, shape: tuple[int, int]) -> tuple[int, int]:
    """Return the position of the inspected weight in this layer."""
    row, column = st.session_state.get(f"{key}-at", (0, 0))
    return min(row, shape[0] - 1), min(column, shape[1] - 1)


def store_clicked_position(key: str) -> None:
    """Store the clicked weight before the fragment is drawn again."""
    points = st.session_state[f"{key}-map-figure"].selection.points
    if points:
        st.session_state[f"{key}-at"] = int(points[0]["y"]), int(points[0]["x"])


def navigation(key: str, shape: tuple[int, int]) -> str:
    """Draw row and column inputs, buttons to move, and the choice of colors."""
    position = inspected_position(key, shape)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        for axis, name in enumerate(("Row", "Column")):
            box, last = f"{key}-{name}", shape[axis] - 1
            st.session_state[box] = position[axis]
            st.number_input(
                f"{name} (0 to {last})",
                0,
                last,
                key=box,
                on_change=store_entered_position,
                args=(key,),
                width=140,
            )
        for name, (down, right, icon) in MOVES.items():
            to = position[0] + down, position[1] + right
            is_outside = not (
                0 <= to[0] // SIDE * SIDE < shape[0] and 0 <= to[1] // SIDE * SIDE < shape[1]
            )
            about = f"{name}: {'end of the layer' if is_outside else f'{SIDE} weights further'}."
            st.button(
                "",
                icon=icon,
                key=f"{key}-{name}-piece",
                on_click=move_to,
                args=(key, to),
                disabled=is_outside,
                help=about,
            )
        return (
            st.segmented_control(
                "Colors show",
                list(VALUE_NAMES),
                format_func=VALUE_NAMES.get,
                default="original",
                key=f"{key}-shown",
            )
            or "original"
        )


def store_entered_position(key: str) -> None:
    st.session_state[f"{key}-at"] = (
        st.session_state[f"{key}-Row"],
        st.session_state[f"{key}-Column"],
    )


def move_to(key: str, position: tuple[int, int]) -> None:
    st.session_state[f"{key}-at"] = position


def weight_details(weight: WeightView, key: str) -> None:
    st.markdown(f"#### How is the weight in row {weight.row}, column {weight.column} stored?")
    facts = [
        ("Original weight", f"{weight.original:.5g}"),
        *code_facts(weight),
        ("Reconstruction", f"{weight.stored:.5g}"),
    ]
    facts += [("Error", f"{weight.stored - weight.original:+.3g}")]
    st.markdown(
        "\n".join(
            ["| Number | Value |", "|---|---|", *(f"| {name} | {value} |" for name, value in facts)]
        )
    )
    if weight.code is None:
        st.caption("This weight is stored directly, without a code.")
    else:
        st.latex(dequantization_formula(weight, weight.code))
    options = {} if weight.levels.empty else {"levels": weight.levels}
    show_panel(NEIGHBORS, weight.group, f"{key}-group", **options)


def code_facts(weight: WeightView) -> list[tuple[str, str]]:
    """Describe the stored code."""
    code = weight.code
    if code is None:
        return []
    zero = [("Zero point", f"{code.zero:g}")] if is_uniform(code) else []
    factor = [("Column scale", f"{weight.factor:.5g}")] if weight.factor != 1 else []
    scale = ("Scale", f"{code.scale:.5g}, shared by {code.shared_by:,} weights")
    return [
        *factor,
        ("Code", f"{code.code}"),
        ("Code, in bits", f"`{code.bit_string}`"),
        scale,
        *zero,
        ("Level", f"{code.level:+.5g}"),
    ]


def dequantization_formula(weight: WeightView, code: WeightCode) -> str:
    """LaTeX formula that dequantizes the code, with its numbers."""
    level = f"({code.code} - {code.zero:g})" if is_uniform(code) else f"({code.level:.5g})"
    factor = rf" \;/\; {weight.factor:.5g}" if weight.factor != 1 else ""
    return (
        rf"\begin{{aligned}} \hat w &= {code.scale:.5g} \times {level}{factor} \\ &= "
        rf"{weight.stored:.5g} \end{{aligned}}"
    )


def is_uniform(code: WeightCode) -> bool:
    return code.zero == code.zero  # not NaN
