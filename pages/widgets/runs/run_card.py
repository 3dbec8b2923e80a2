"""One run on a page: its progress, then its results or its error."""

import streamlit as st

from engine.errors import PlainError
from engine.recipe import Recipe
from engine.results.schema.record import FINISHED, RunRecord
from engine.results.schema.tables import CurveRow, table
from pages.panels import LEARNING_RATE, SCHEDULE_LIVE, TRAINING_CURVES
from pages.panels.training.schedule_live import PHASE
from pages.widgets.chart_card import show_panel
from pages.widgets.model_picker import short_name
from pages.widgets.queries import literal_markdown, show_error, show_errors, stop_on_error
from pages.widgets.runs.results import show_results
from pages.widgets.state import session
from pages.widgets.visitor import visitor

STATUS_TEXTS = {
    "failed": "This run failed.",
    "cancelled": "This run was canceled.",
    "interrupted": "This run was interrupted.",
    "unreadable": "This run cannot be read.",
}


def current_run() -> str | None:
    """Id of the run to show: the one started here, the one in the address, or one in progress."""
    run = st.session_state.get("run") or st.query_params.get("run") or run_in_progress()
    if not run or not run_exists(run):
        st.session_state.pop("run", None)
        return None
    st.session_state["run"] = st.query_params["run"] = run
    return run


def run_in_progress() -> str | None:
    with stop_on_error():
        return session().store.under_way()


def run_exists(run: str) -> bool:
    """Return False if the run was deleted or the id is unknown."""
    try:
        return bool(session().store.record(run))
    except PlainError:
        return False


def run_card(run: str, key: str = "card") -> None:
    """Draw a run in any state."""
    with stop_on_error():
        record = session().store.record(run)
    if record.status not in FINISHED:
        show_progress(run, key)
        return
    with show_errors(f"Run {record.id}"):
        if record.status == "done":
            show_results(record, key)
        else:
            show_outcome(record, key)


@st.fragment(run_every=0.7)
def show_progress(run: str, key: str) -> None:
    """Draw progress, remaining time and Cancel, and refresh; reload the page when the run ends."""
    with stop_on_error():
        record, progress = session().store.record(run), session().progress(run)
    if record.status in FINISHED:
        st.rerun()
    with st.container(border=True):
        st.markdown(f"**Run {record.id}** · {model_and_steps(record)}")
        st.progress(progress.overall, literal_markdown(progress.sentence()))
        st.caption(
            "You can close this page; the run continues in the background and is listed under Runs."
        )
        if record.message:
            st.warning(literal_markdown(record.message))
        if progress.curves:
            panel = SCHEDULE_LIVE if progress.curves[-1].phase == PHASE else TRAINING_CURVES
            curves = table(
                [row for row in progress.curves if panel is TRAINING_CURVES or row.phase == PHASE],
                CurveRow,
            )
            show_panel(panel, curves, f"{key}-live")
            if (curves.name == "rate").any():
                show_panel(LEARNING_RATE, curves, f"{key}-live-rate")
        if not session().may_change(record, visitor()):
            st.caption("Another visitor started this run.")
        elif st.button("Cancel", key=f"{key}-cancel", icon=":material/stop_circle:"):
            cancel_run(run)


def model_and_steps(record: RunRecord) -> str:
    """Model and steps of a run, as Markdown."""
    return f"{literal_markdown(short_name(record.recipe.model))} · {literal_markdown(record.label)}"


def cancel_run(run: str) -> None:
    try:
        session().cancel(run, visitor())
        st.toast("Canceling: the run stops at the next layer; training keeps its best checkpoint.")
    except PlainError as error:
        show_error(str(error))


def show_outcome(record: RunRecord, key: str) -> None:
    """Draw what happened, and a button to run it again."""
    with st.container(border=True):
        has_recipe = record.status != "unreadable" or bool(record.recipe.steps)
        st.markdown(
            " · ".join([f"**Run {record.id}**", *([model_and_steps(record)] if has_recipe else [])])
        )
        message = f"{STATUS_TEXTS[record.status]} {record.message}"
        (st.info if record.status == "cancelled" else st.error)(literal_markdown(message))
        if record.status in ("failed", "interrupted") and session().has_finished_blocks(record):
            st.info("Finished layers are kept; running it again resumes from there.")
        if has_recipe and st.button(
            "Run again", key=f"{key}-again-{record.id}", icon=":material/replay:"
        ):
            start_run(record.recipe)
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
        start_run(recipe)


def start_run(recipe: Recipe) -> None:
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
