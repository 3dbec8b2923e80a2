"""Choosing runs to compare, and the tables that comparison draws."""

import pandas as pd
import streamlit as st

from engine.results.analysis import comparison
from engine.results.glossary import GLOSSARY
from engine.results.record import RunRecord
from engine.results.tables import Tables
from pages.parts.plainly import plainly
from pages.parts.state import session
from pages.parts.words import meaning

LINK = "runs"


def pick_runs() -> list[RunRecord]:
    """Finished runs, by link (?runs=a,b) or by choice; the address always names the choice."""
    with plainly():
        finished = {record.id: record for record in session().records() if record.status == "done" and record.summary}
    linked = [run for run in dict.fromkeys(st.query_params.get(LINK, "").split(",")) if run in finished]
    before = [run for run in st.session_state.get("compared", linked) if run in finished] or linked or newest_of_one_model(finished)
    chosen = st.multiselect(
        "Runs", list(finished), before, format_func=lambda run: name_of(finished[run]), key="compare-runs", placeholder="Choose finished runs"
    )
    st.session_state["compared"] = chosen
    st.query_params[LINK] = ",".join(chosen)
    st.caption("The address of this page names the runs: copy it to share the view with others on this server.")
    return [finished[run] for run in chosen]


def newest_of_one_model(finished: dict[str, RunRecord]) -> list[str]:
    """The newest run and up to three earlier ones of its model: numbers that compare."""
    models = [record.recipe.model for record in finished.values()]
    return [run for run, record in finished.items() if record.recipe.model == models[0]][:4]


def name_of(record: RunRecord) -> str:
    return f"{record.label} · {record.recipe.model.removeprefix('bundled:')} · {record.id}"


def comparison_table(chosen: list[RunRecord]) -> None:
    frame = comparison(chosen).assign(
        model=lambda t: t.model.str.removeprefix("bundled:"),
        size_bytes=lambda t: t.size_bytes / 1e6,
        agreement=lambda t: 100 * t.agreement,
        quality_change_share=lambda t: (100 * t.quality_change_share).round(1) + 0.0,  # no minus before nothing
    )
    numbers = {"size_bytes": ("Size (MB)", "%.2f"), "compression": ("Smaller by", "%.2fx"), "bits_per_weight": ("Bits per weight", "%.2f"),
               "quality_before": ("Before", "%.3f"), "quality_after": ("After", "%.3f"), "quality_change_share": ("Change", "%+.1f %%"),
               "agreement": ("Agreement", "%.1f %%")}  # fmt: skip
    helps = {name: meaning(name) for name in numbers if name in GLOSSARY}
    columns = {name: st.column_config.NumberColumn(title, format=form, help=helps.get(name)) for name, (title, form) in numbers.items()}
    words = {"label": "Setting", "model": "Model", "quality_name": "Measure"}
    shown = frame[["label", "model", "quality_name", *numbers]]
    st.dataframe(shown, hide_index=True, width="stretch", column_config=columns | words)
    st.download_button("Download as CSV", comparison(chosen).to_csv(index=False), "comparison.csv", "text/csv", icon=":material/download:")


def tables_by_label(chosen: list[RunRecord]) -> dict[str, Tables]:
    """A run's tables under its setting; the run's id tells equal settings apart."""
    labels = [record.label for record in chosen]
    return {record.label if labels.count(record.label) == 1 else f"{record.label} ({record.id})": session().tables(record.id) for record in chosen}


def pick_common_layer(tables: dict[str, Tables]) -> str | None:
    """One layer that every chosen run compressed."""
    common = [set(table.histograms.layer) for table in tables.values()]
    names = [name for name in next(iter(tables.values())).layers.name if all(name in layers for layers in common)]
    if not names:
        st.caption("These runs have no compressed layer in common, so no single layer can be shown under all of them.")
        return None
    return st.selectbox("One layer under every setting", names, key="compare-layer", help="Type to search.")


def histograms_side_by_side(tables: dict[str, Tables], layer: str) -> pd.DataFrame:
    return pd.concat([table.histograms[table.histograms.layer == layer].assign(label=label) for label, table in tables.items()], ignore_index=True)
