"""Table of runs, and the actions on one of them."""

from contextlib import suppress
from typing import Any
from zlib import crc32

import pandas as pd
import streamlit as st

from engine.errors import PlainError
from engine.results.schema.record import FINISHED, RunRecord
from engine.results.store.run_query import RunPage, RunRow
from pages.widgets.queries import show_error
from pages.widgets.state import session
from pages.widgets.visitor import visitor

DELETED = "runs-deleted"  # number of deletions in this browser session
CHOSEN = "runs-chosen"  # id of the clicked run
SHOWN = "runs-shown"  # ids of the rows on the screen; a click gives a row number
COLUMNS = {
    "setting": st.column_config.TextColumn("Setting", width="medium"),
    "model": "Model",
    "status": "Status",
    "when": st.column_config.DatetimeColumn("When", format="distance"),
    "size": st.column_config.NumberColumn("Size (MB)", format="%.2f"),
    "measure": "Measure",
    "before": st.column_config.NumberColumn("Before", format="%.3f"),
    "after": st.column_config.NumberColumn("After", format="%.3f"),
    "run": "Run",
    "note": st.column_config.TextColumn("Message", width="large"),
}


def run_table(page: RunPage) -> None:
    """Draw one page of runs; a click on a row selects its run."""
    st.session_state[SHOWN] = [row.id for row in page.rows]
    # other rows make another widget, in which nothing is selected
    rows = crc32(",".join(st.session_state[SHOWN]).encode())
    key = f"runs-table-{st.session_state.get(DELETED, 0)}-{rows}"
    st.dataframe(
        pd.DataFrame([row_cells(row) for row in page.rows], columns=list(COLUMNS)),
        hide_index=True,
        width="stretch",
        on_select=lambda: store_clicked_run(key),
        selection_mode="single-row",
        key=key,
        placeholder="",
        column_config=COLUMNS,
    )


def row_cells(row: RunRow) -> tuple[Any, ...]:
    """Values of a row in the order of the columns; missing numbers are empty cells."""
    words = row.label or "(cannot be read)", row.model.removeprefix("bundled:")[:200], row.status
    return (
        *words,
        row.created,
        row.size_bytes / 1e6,
        row.measure,
        row.before,
        row.after,
        row.id,
        row.message,
    )


def store_clicked_run(key: str) -> None:
    rows = st.session_state[key].selection.rows
    if rows:
        st.session_state[CHOSEN] = st.session_state[SHOWN][rows[0]]


def chosen_run() -> RunRecord | None:
    """Return the clicked run, otherwise the last one opened on any page or the one in the address;
    None if it is gone.
    """
    for run in (
        st.session_state.get(CHOSEN),
        st.session_state.get("run"),
        st.query_params.get("run"),
    ):
        with suppress(PlainError):  # deleted in the meantime, or not a run
            if run:
                return session().store.record(run)
    return None


def delete_button(record: RunRecord) -> None:
    """Draw the delete button for runs that have ended."""
    if not session().may_change(record, visitor()):
        return
    if record.status in FINISHED and st.button(
        f"Delete run {record.id}", key="runs-delete", icon=":material/delete:"
    ):
        try:
            session().delete(record.id, visitor())
        except PlainError as error:
            show_error(str(error))
            return
        st.session_state[DELETED] = st.session_state.get(DELETED, 0) + 1
        for name in (CHOSEN, "run"):
            if st.session_state.get(name) == record.id:
                del st.session_state[name]
        if st.query_params.get("run") == record.id:
            del st.query_params["run"]
        st.rerun()
