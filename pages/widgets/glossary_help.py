"""Glossary on the screen: help texts for numbers, and the full list."""

from typing import Any

import pandas as pd
import streamlit as st

from engine.results.schema.glossary import GLOSSARY


def meaning(name: str) -> str:
    """Help text for a number, by its name in tables and scores."""
    term = GLOSSARY[name]
    return f"{term.meaning} ({term.unit})" if term.unit else term.meaning


def column_meanings(table: pd.DataFrame) -> dict[str, Any]:
    """Help for each column of a table that the glossary contains."""
    return {
        name: st.column_config.Column(help=meaning(name))
        for name in table.columns
        if name in GLOSSARY
    }


@st.dialog("What the numbers mean", width="large")
def glossary() -> None:
    st.caption("Names and formulas are the same on the screen, in downloads and in JSON output.")
    for name, term in GLOSSARY.items():
        st.markdown(
            f"**{term.name}**{f' ({term.unit})' if term.unit else ''} · `{name}`  \n{term.meaning}"
        )
        if term.formula:
            st.latex(term.formula)


def glossary_button() -> None:
    if st.button(
        "Glossary",
        icon=":material/menu_book:",
        type="tertiary",
        key="glossary",
        help="Definitions and formulas of all numbers.",
    ):
        glossary()
