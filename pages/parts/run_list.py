"""The list of runs, and what can be done with one."""

import pandas as pd
import streamlit as st

from engine.errors import PlainError
from engine.results.record import FINISHED, RunRecord
from pages.parts.plainly import said
from pages.parts.results import quality_of
from pages.parts.state import session

WORDS = {
    "queued": "waiting",
    "running": "running",
    "done": "done",
    "failed": "failed",
    "cancelled": "cancelled",
    "interrupted": "interrupted",
    "unreadable": "unreadable",
}

DELETED = "runs-deleted"  # how many, in this browser session


def run_table(records: list[RunRecord]) -> RunRecord | None:
    """All runs in a table; the chosen one, else the last one opened, if any."""
    event = st.dataframe(
        pd.DataFrame([row_of(record) for record in records]),
        hide_index=True,
        width="stretch",
        on_select="rerun",
        selection_mode="single-row",
        key=f"runs-table-{st.session_state.get(DELETED, 0)}",  # rows move up when one is deleted: nothing is selected then
        placeholder="",
        column_config={
            "technique": st.column_config.TextColumn("Setting", width="medium"),
            "model": "Model",
            "status": "Status",
            "size": st.column_config.NumberColumn("Size (MB)", format="%.2f"),
            "measure": "Measure",
            "before": st.column_config.NumberColumn("Before", format="%.3f"),
            "quality": st.column_config.NumberColumn("After", format="%.3f"),
            "when": st.column_config.DatetimeColumn("When", format="distance"),
            "run": "Run",
        },
    )
    rows = event.selection.rows
    opened = next((record for record in records if record.id == st.session_state.get("run")), None)
    return records[rows[0]] if rows and rows[0] < len(records) else opened


def row_of(record: RunRecord) -> dict:
    """Missing numbers are empty cells."""
    names = {"technique": record.label, "model": record.recipe.model.removeprefix("bundled:"), "status": WORDS[record.status]}
    when = {"when": record.created, "run": record.id}
    if record.summary is None:
        return names | {"size": float("nan"), "measure": "", "before": float("nan"), "quality": float("nan")} | when
    name, before, after = quality_of(record.summary.baseline, record.summary.result)
    return names | {"size": record.summary.result.size_bytes / 1e6, "measure": name.lower(), "before": before, "quality": after} | when


def actions(record: RunRecord) -> None:
    """Delete, for runs that have ended; the recipe stands in the run itself."""
    if record.status in FINISHED and st.button(f"Delete run {record.id}", key="runs-delete", icon=":material/delete:"):
        try:
            session().delete(record.id)
        except PlainError as error:
            said(str(error))
            return
        st.session_state[DELETED] = st.session_state.get(DELETED, 0) + 1
        if st.session_state.get("run") == record.id:
            del st.session_state["run"]
        st.rerun()
