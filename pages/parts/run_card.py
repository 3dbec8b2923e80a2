"""One run on a page: its progress while it goes on, then its numbers, or what happened and what to do."""

import streamlit as st

from engine.errors import PlainError
from engine.recipe import Recipe
from engine.results.record import FINISHED, RunRecord
from engine.results.tables import CurveRow, table
from pages.panels import LEARNING_PACE, SCHEDULE_LIVE, TRAINING_CURVES
from pages.panels.schedule_live import PHASE
from pages.parts.model_picker import short_name
from pages.parts.plainly import escaped, plainly, said
from pages.parts.results import show_results
from pages.parts.show import show
from pages.parts.state import session

SAYS = {
    "failed": "This run failed.",
    "cancelled": "This run was cancelled.",
    "interrupted": "This run was interrupted.",
    "unreadable": "This run cannot be read.",
}


def current_run() -> str | None:
    """The run to show: the one started here, the one in the address (after a refresh), or one that is under way."""
    run = st.session_state.get("run") or st.query_params.get("run") or under_way()
    if not run or not exists(run):
        st.session_state.pop("run", None)
        return None
    st.session_state["run"] = st.query_params["run"] = run
    return run


def under_way() -> str | None:
    with plainly():
        return next((record.id for record in session().records() if record.status not in FINISHED), None)


def exists(run: str) -> bool:
    """Not when it was deleted meanwhile, or the address names none."""
    try:
        return bool(session().record(run))
    except PlainError:
        return False


def run_card(run: str, key: str = "card") -> None:
    """Whatever there is to see of a run."""
    with plainly():
        record = session().record(run)
    if record.status not in FINISHED:
        follow(run, key)
    elif record.status == "done":
        show_results(record, key)
    else:
        ended(record, key)


@st.fragment(run_every=0.7)
def follow(run: str, key: str) -> None:
    """Progress, remaining time and Cancel. Redraws itself; the whole page once the run has ended."""
    with plainly():
        record, progress = session().record(run), session().progress(run)
    if record.status in FINISHED:
        st.rerun()
    with st.container(border=True):
        st.markdown(f"**Run {record.id}** · {escaped(short_name(record.recipe.model))} · {escaped(record.label)}")
        st.progress(progress.overall, escaped(progress.sentence()))
        st.caption("You can leave this page or close the browser: the run goes on, and stands under Runs.")
        if record.message:
            st.warning(escaped(record.message))
        if progress.curves:
            panel = SCHEDULE_LIVE if progress.curves[-1].phase == PHASE else TRAINING_CURVES
            curves = table([row for row in progress.curves if panel is TRAINING_CURVES or row.phase == PHASE], CurveRow)
            show(panel, curves, f"{key}-live")
            if (curves.name == "rate").any():
                show(LEARNING_PACE, curves, f"{key}-live-rate")
        if st.button("Cancel", key=f"{key}-cancel", icon=":material/stop_circle:"):
            cancel(run)


def cancel(run: str) -> None:
    try:
        session().cancel(run)
        st.toast("Cancelling: the run stops at the next layer; a training keeps the best it has found.")
    except PlainError as error:
        said(str(error))


def ended(record: RunRecord, key: str) -> None:
    """What happened, and one click to try again."""
    with st.container(border=True):
        st.markdown(f"**Run {record.id}** · {escaped(short_name(record.recipe.model))} · {escaped(record.label)}")
        message = f"{SAYS[record.status]} {record.message}"
        (st.info if record.status == "cancelled" else st.error)(escaped(message))
        if record.status in ("failed", "interrupted") and session().kept(record):
            st.info("What it had finished is kept: running it again goes on from there.")
        if record.status != "unreadable" and st.button("Run again", key=f"{key}-again-{record.id}", icon=":material/replay:"):
            start(record.recipe)
            st.rerun()


def run_button(recipe: Recipe | None, key: str) -> None:
    """The page's main button; nothing can be run where there is no recipe."""
    if st.button("Run", type="primary", key=f"{key}-run", width="stretch", icon=":material/play_arrow:", disabled=recipe is None):
        start(recipe)


def start(recipe: Recipe) -> None:
    """Submit a recipe and remember the run as the one to show."""
    with plainly():
        record = session().submit(recipe)
    if record.status == "done":
        st.toast("This was run before: its result is below. Delete it under Runs to measure anew.")
    else:
        st.toast(f"Run {record.id} is under way; its progress is below.")
    st.session_state["run"] = st.query_params["run"] = record.id
