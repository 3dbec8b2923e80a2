"""One run on a page: its progress, then its results or its error."""

import streamlit as st

from engine.errors import PlainError
from engine.recipe import Recipe
from engine.results.schema.record import FINISHED, RunRecord
from engine.results.schema.tables import CurveRow, table
from pages.panels import LEARNING_PACE, SCHEDULE_LIVE, TRAINING_CURVES
from pages.panels.training.schedule_live import PHASE
from pages.widgets.chart_card import show
from pages.widgets.model_picker import short_name
from pages.widgets.queries import escaped, show_error, show_errors, stop_on_error
from pages.widgets.runs.results import show_results
from pages.widgets.state import session
from pages.widgets.visitor import visitor

SAYS = {
    "failed": "This run failed.",
    "cancelled": "This run was canceled.",
    "interrupted": "This run was interrupted.",
    "unreadable": "This run cannot be read.",
}


def current_run() -> str | None:
    """Id of the run to show: the one started here, the one in the address, or one in progress."""
    run = st.session_state.get("run") or st.query_params.get("run") or under_way()
    if not run or not exists(run):
        st.session_state.pop("run", None)
        return None
    st.session_state["run"] = st.query_params["run"] = run
    return run


def under_way() -> str | None:
    with stop_on_error():
        return session().under_way()


def exists(run: str) -> bool:
    """Return False if the run was deleted or the id is unknown."""
    try:
        return bool(session().record(run))
    except PlainError:
        return False


def run_card(run: str, key: str = "card") -> None:
    """Draw a run in any state."""
    with stop_on_error():
        record = session().record(run)
    if record.status not in FINISHED:
        follow(run, key)
        return
    with show_errors(f"Run {record.id}"):
        if record.status == "done":
            show_results(record, key)
        else:
            ended(record, key)


@st.fragment(run_every=0.7)
def follow(run: str, key: str) -> None:
    """Draw progress, remaining time and Cancel, and refresh; reload the page when the run ends."""
    with stop_on_error():
        record, progress = session().record(run), session().progress(run)
    if record.status in FINISHED:
        st.rerun()
    with st.container(border=True):
        st.markdown(f"**Run {record.id}** · {setting_of(record)}")
        st.progress(progress.overall, escaped(progress.sentence()))
        st.caption(
            "You can close this page; the run continues in the background and is listed under Runs."
        )
        if record.message:
            st.warning(escaped(record.message))
        if progress.curves:
            panel = SCHEDULE_LIVE if progress.curves[-1].phase == PHASE else TRAINING_CURVES
            curves = table(
                [row for row in progress.curves if panel is TRAINING_CURVES or row.phase == PHASE],
                CurveRow,
            )
            show(panel, curves, f"{key}-live")
            if (curves.name == "rate").any():
                show(LEARNING_PACE, curves, f"{key}-live-rate")
        if not session().may_change(record, visitor()):
            st.caption("Another visitor started this run.")
        elif st.button("Cancel", key=f"{key}-cancel", icon=":material/stop_circle:"):
            cancel(run)


def setting_of(record: RunRecord) -> str:
    """Model and steps of a run, as Markdown."""
    return f"{escaped(short_name(record.recipe.model))} · {escaped(record.label)}"


def cancel(run: str) -> None:
    try:
        session().cancel(run, visitor())
        st.toast("Canceling: the run stops at the next layer; training keeps its best checkpoint.")
    except PlainError as error:
        show_error(str(error))


def ended(record: RunRecord, key: str) -> None:
    """Draw what happened, and a button to run it again."""
    with st.container(border=True):
        known = record.status != "unreadable" or bool(record.recipe.steps)
        st.markdown(" · ".join([f"**Run {record.id}**", *([setting_of(record)] if known else [])]))
        message = f"{SAYS[record.status]} {record.message}"
        (st.info if record.status == "cancelled" else st.error)(escaped(message))
        if record.status in ("failed", "interrupted") and session().kept(record):
            st.info("Finished layers are kept; running it again resumes from there.")
        if known and st.button(
            "Run again", key=f"{key}-again-{record.id}", icon=":material/replay:"
        ):
            start(record.recipe)
            st.rerun()


def run_button(recipe: Recipe | None, key: str) -> None:
    """Draw the page's primary button; disabled without a recipe."""
    if st.button(
        "Run",
        type="primary",
        key=f"{key}-run",
        width="stretch",
        icon=":material/play_arrow:",
        disabled=recipe is None,
    ):
        start(recipe)


def start(recipe: Recipe) -> None:
    """Submit a recipe and remember the run as the one to show."""
    with stop_on_error():
        record = session().submit(recipe, visitor())
    if record.status == "done":
        st.toast(
            "Showing the stored result of an identical run. To repeat it, delete that run first."
        )
    else:
        st.toast(f"Run {record.id} has started; its progress is below.")
    st.session_state["run"] = st.query_params["run"] = record.id
