"""Display of a panel: its question, figure, caption and table."""

from functools import partial
from importlib import import_module
from typing import Any

import pandas as pd
import streamlit as st

from pages import panels
from pages.panels import Panel
from pages.widgets.glossary_help import column_meanings


def panel_named(name: str) -> Panel:
    """Panel of ``pages.panels``, or of another module as ``"package.module:NAME"``."""
    module, _, attribute = name.rpartition(":")
    panel = getattr(import_module(module) if module else panels, attribute)
    if not isinstance(panel, Panel):
        raise TypeError(f"{name} is not a panel")
    return panel


def panel_key(key: str, name: str) -> str:
    """Key of a panel by its name, below the view's key."""
    return f"{key}-{name.rpartition(':')[2].lower().replace('_', '-')}"


def show_panel(
    panel: Panel, table: pd.DataFrame, key: str, chart: dict[str, Any] | None = None, **options: Any
) -> None:
    """Draw a panel; ``key`` is unique on the page and part of the download's name.

    ``chart`` is passed to the chart, such as click handlers; ``options`` to the panel.
    """
    st.markdown(f"#### {panel.question}")
    chart_options = {
        "width": "stretch",
        "key": f"{key}-figure",
        "alt": panel.alt(table),
        "config": {"displaylogo": False},
    }
    st.plotly_chart(panel.draw(table, **options), **chart_options | (chart or {}))
    st.caption(panel.caption)
    if not table.empty:
        data_expander(table, key)


def data_expander(table: pd.DataFrame, key: str) -> None:
    with st.expander("Data", icon=":material/table:"):
        st.dataframe(
            table,
            width="stretch",
            hide_index=True,
            key=f"{key}-table",
            height=260,
            column_config=column_meanings(table),
        )
        table_download("Download as CSV", table, f"{key}.csv", key=f"{key}-csv")


def table_download(label: str, table: pd.DataFrame, file_name: str, key: str) -> None:
    """Draw a button that creates the CSV when clicked.

    Content given in advance would be served at its own address, which a rerun with another table
    removes while the browser may still request it.
    """
    st.download_button(
        label,
        partial(csv_bytes, table),
        file_name,
        "text/csv",
        key=key,
        on_click="ignore",
        icon=":material/download:",
    )


def csv_bytes(table: pd.DataFrame) -> bytes:
    """CSV of the table, in which a spreadsheet reads no text as a formula (OWASP, CSV
    injection).
    """
    texts = [name for name in table if not pd.api.types.is_numeric_dtype(table[name].dtype)]
    return (
        table.assign(**{name: table[name].map(without_formula) for name in texts})
        .to_csv(index=False)
        .encode()
    )


def without_formula(value: Any) -> Any:
    return (
        f"'{value}"
        if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
        else value
    )
