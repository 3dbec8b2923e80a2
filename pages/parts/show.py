"""A panel on a page: its question, the figure, how to read it, and the numbers behind it."""

from typing import Any

import pandas as pd
import streamlit as st

from pages.panels import Panel
from pages.parts.words import column_meanings


def show(panel: Panel, table: pd.DataFrame, key: str, chart: dict[str, Any] | None = None, **options: Any) -> None:
    """Draws everything a panel needs; ``key`` names it on its page and in the download's file name. ``chart`` goes to the chart, such as
    what to do with a click; ``options`` to the panel.
    """
    st.markdown(f"#### {panel.question}")
    look = {"width": "stretch", "key": f"{key}-figure", "alt": panel.alt(table), "config": {"displaylogo": False}}
    st.plotly_chart(panel.draw(table, **options), **look | (chart or {}))
    st.caption(panel.caption)
    if not table.empty:
        numbers_behind(table, key)


def numbers_behind(table: pd.DataFrame, key: str) -> None:
    with st.expander("The numbers behind it", icon=":material/table:"):
        st.dataframe(table, width="stretch", hide_index=True, key=f"{key}-table", height=260, column_config=column_meanings(table))
        st.download_button("Download as CSV", csv_of(table), f"{key}.csv", "text/csv", key=f"{key}-csv", icon=":material/download:")


def csv_of(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=False).encode()
