"""How a technique works, where it is used: idea, formula, paper, when it fails, and a picture on the layer that is looked at."""

from typing import Any

import streamlit as st
from pydantic import ValidationError

from engine.catalog import TECHNIQUES
from engine.catalog.schedules import Gradual, LotteryTicket
from engine.catalog.technique import Technique
from engine.errors import PlainError
from engine.recipe import Recipe
from engine.results.ahead import cuts_ahead, rounds_ahead
from engine.results.answers import ModelView
from engine.results.lessons import BitsRow, CriterionRow, GroupRow, Lesson, OutlierRow, ReachRow, RemovedRow, ReplayRow, ScaledRow, TileRow
from engine.results.tables import StructureRow
from pages.panels import (
    CUTS_AHEAD,
    ERROR_BY_BITS,
    GPTQ_REPLAY,
    INPUT_REACH,
    ONE_GROUP,
    OUTLIER_COLUMNS,
    RECONSTRUCTION,
    REMOVED_WEIGHTS,
    ROUNDS_AHEAD,
    SCALED_COLUMN,
    STRUCTURE_SCORES,
    WAYS_TO_CHOOSE,
    Panel,
)
from pages.parts.plainly import SAID_ABOVE, escaped, kept_answer
from pages.parts.show import show
from pages.parts.what_if import looked_at

PICTURES: dict[type, Panel] = {
    GroupRow: ONE_GROUP,
    ReplayRow: GPTQ_REPLAY,
    ScaledRow: SCALED_COLUMN,
    ReachRow: INPUT_REACH,
    OutlierRow: OUTLIER_COLUMNS,
    BitsRow: ERROR_BY_BITS,
    CriterionRow: WAYS_TO_CHOOSE,
    RemovedRow: REMOVED_WEIGHTS,
    StructureRow: STRUCTURE_SCORES,
    TileRow: RECONSTRUCTION,
}


def how_it_works(how: type[Technique]) -> None:
    st.markdown(f"### How it works: {escaped(how.title)}")
    left, right = st.columns([3, 2], gap="large")
    with left:
        st.markdown(how.idea)
        st.latex(how.formula)
    with right:
        st.markdown("**When it fails**")
        st.markdown(how.fails)
        st.markdown(f"**Read more**: {how.paper}")


def what_lies_ahead(step: dict[str, Any], key: str) -> None:
    """What the options plan, of techniques that go in rounds; nothing where they are not allowed, which the page says already."""
    try:
        how = TECHNIQUES[step["technique"]](**step)
    except ValidationError:
        return
    match how:
        case Gradual():
            show(CUTS_AHEAD, cuts_ahead(how), f"{key}-ahead")
        case LotteryTicket():
            show(ROUNDS_AHEAD, rounds_ahead(how), f"{key}-ahead")


def on_real_weights(view: ModelView, step: dict[str, Any], recipe: Recipe | None, key: str) -> None:
    """The technique at work on a part of the layer that the what-if looks at."""
    question = looked_at(view, step, recipe, key)
    try:
        lesson: Lesson = kept_answer("lessons:lesson", view.revision, **question)
    except PlainError:
        st.caption(SAID_ABOVE)
        return
    options = {} if lesson.levels.empty else {"levels": lesson.levels}
    show(PICTURES[lesson.row], lesson.table, f"{key}-lesson", **options)
    st.caption(f"Real weights of {escaped(question['layer'])}: {lesson.part}. Change an option above, or the layer, and look again.")
