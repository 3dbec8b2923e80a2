"""Selection of runs to compare, and the tables of the comparison."""

from collections.abc import Iterable
from itertools import islice

import pandas as pd
import streamlit as st

from engine.errors import PlainError
from engine.results.analysis.runs import comparison
from engine.results.schema.glossary import GLOSSARY
from engine.results.schema.record import RunRecord
from engine.results.schema.run_tables import Tables
from engine.results.store.run_query import MAX_CELL_CHARACTERS, RunPage, RunQuery
from pages.widgets.chart_card import table_download
from pages.widgets.glossary_help import meaning
from pages.widgets.queries import show_errors, stop_on_error
from pages.widgets.runs.run_filters import filter_runs, query_from
from pages.widgets.state import session

LINK = "runs"
MAX_COMPARED = 12  # runs; charts of more are unreadable
COMPARED_TABLES = ("layers", "histograms")


def pick_runs() -> list[RunRecord]:
    """Let the user choose finished runs and return their records.

    The choice is kept in the address (?runs=a,b). If there are many runs, the list offers one page
    of those that match the search and filters, plus those already chosen.
    """
    query = query_from("compare-query", measured=True)
    with stop_on_error():
        page = session().store.page(query)
    linked = comparable_run_names(st.query_params.get(LINK, "").split(","))
    before = (
        comparable_run_names(st.session_state.get("compared", linked))
        or linked
        or newest_of_one_model(page, query)
    )
    if page.total > query.limit or query != RunQuery(measured=True):
        filter_runs(query, page, "compare")
    offered = before | {row.id: run_name(row.label, row.model, row.id) for row in page.rows}
    chosen = st.multiselect(
        "Runs",
        list(offered),
        list(before),
        format_func=offered.get,
        key="compare-runs",
        max_selections=MAX_COMPARED,
        placeholder="Choose finished runs",
    )
    if page.matching > len(page.rows):
        st.caption(
            f"The list offers {len(page.rows)} of {page.matching:,} finished runs. Search or "
            "filter to find others."
        )
    st.session_state["compared"] = chosen
    st.query_params[LINK] = ",".join(chosen)
    st.caption("Copy the address of this page to share the view with others on this server.")
    return [record for run in chosen if (record := measured_record(run))]


def comparable_run_names(runs: Iterable[str]) -> dict[str, str]:
    """Names of the runs that can be compared by id, at most MAX_COMPARED; other ids are ignored."""
    records = (
        record
        for run in islice(dict.fromkeys(runs), 4 * MAX_COMPARED)
        if (record := measured_record(run))
    )
    return {
        record.id: run_name(record.label, record.recipe.model, record.id)
        for record in islice(records, MAX_COMPARED)
    }


def measured_record(run: str) -> RunRecord | None:
    """Return the record of a finished run with results, or None."""
    try:
        record = session().store.record(run)
    except PlainError:
        return None
    return record if record.status == "done" and record.summary else None


def newest_of_one_model(page: RunPage, query: RunQuery) -> dict[str, str]:
    """Names by id of the newest run and up to three earlier ones of the same model."""
    with stop_on_error():
        newest = (
            page.rows
            if query == RunQuery(measured=True)
            else session().store.page(RunQuery(measured=True)).rows
        )
    return {
        row.id: run_name(row.label, row.model, row.id)
        for row in [row for row in newest if row.model == newest[0].model][:4]
    }


def run_name(label: str, model: str, run: str) -> str:
    return (
        f"{label[:MAX_CELL_CHARACTERS]} · {model.removeprefix('bundled:')[:MAX_CELL_CHARACTERS]} "
        f"· {run}"
    )


def readable_runs(chosen: list[RunRecord]) -> list[RunRecord]:
    """Return the runs whose numbers can be read; the others are shown as errors."""
    readable = []
    for record in chosen:
        with show_errors(f"Run {record.id}"):
            comparison([record])
            readable.append(record)
    return readable


def comparison_table(chosen: list[RunRecord]) -> None:
    frame = comparison(chosen).assign(
        model=lambda t: t.model.str.removeprefix("bundled:"),
        size_bytes=lambda t: t.size_bytes / 1e6,
        agreement=lambda t: 100 * t.agreement,
        quality_change_share=lambda t: (100 * t.quality_change_share).round(1) + 0.0,  # no -0
    )
    numbers = {
        "size_bytes": ("Size (MB)", "%.2f"),
        "compression": ("Compression", "%.2fx"),
        "quality_before": ("Before", "%.3f"),
        "quality_after": ("After", "%.3f"),
        "quality_change_share": ("Change", "%+.1f%%"),
        "agreement": ("Agreement", "%.1f%%"),
        "bits_per_parameter": ("Bits per parameter", "%.2f"),
        "bits_per_weight": ("Bits per compressed weight", "%.2f"),
    }
    helps = {name: meaning(name) for name in numbers if name in GLOSSARY}
    columns = {
        name: st.column_config.NumberColumn(title, format=form, help=helps.get(name))
        for name, (title, form) in numbers.items()
    }
    words = {"label": "Setting", "model": "Model", "quality_name": "Measure"}
    shown = frame[["label", "model", "quality_name", *numbers]]
    st.dataframe(shown, hide_index=True, width="stretch", column_config=columns | words)
    table_download("Download as CSV", comparison(chosen), "comparison.csv", key="comparison-csv")


def tables_by_label(chosen: list[RunRecord]) -> dict[str, Tables]:
    """Return the tables that the comparison draws, by the run's label.

    Runs with equal labels are told apart by their id. Runs with damaged tables are shown as errors
    and left out.
    """
    labels, tables = [record.label for record in chosen], {}
    for record in chosen:
        label = record.label if labels.count(record.label) == 1 else f"{record.label} ({record.id})"
        with show_errors(f"Run {record.id}"):
            tables[label] = session().store.tables(record.id, COMPARED_TABLES)
    return tables


def pick_common_layer(tables: dict[str, Tables]) -> str | None:
    """Let the user choose a layer that every run compressed."""
    common = [set(table.histograms.layer) for table in tables.values()]
    first = next(iter(tables.values()), Tables.empty())
    names = [name for name in first.layers.name if all(name in layers for layers in common)]
    if not names:
        st.caption("These runs have no compressed layer in common, so no layer can be compared.")
        return None
    return st.selectbox("Compare one layer", names, key="compare-layer", help="Type to search.")


def histograms_side_by_side(tables: dict[str, Tables], layer: str) -> pd.DataFrame:
    return pd.concat(
        [
            table.histograms[table.histograms.layer == layer].assign(label=label)
            for label, table in tables.items()
        ],
        ignore_index=True,
    )
