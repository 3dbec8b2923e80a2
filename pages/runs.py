"""Runs: everything that was run, newest first, and what became of it."""

import streamlit as st

from pages.parts.plainly import plainly
from pages.parts.run_card import run_card
from pages.parts.run_list import actions, run_table
from pages.parts.state import session

st.title("What has been run?")
with plainly():
    records = session().records()
if not records:
    st.info("No runs yet. Start one on the Start page: it takes seconds.")
    st.stop()
chosen = run_table(records)
if chosen is None:
    st.caption("Choose a run to open it.")
else:
    actions(chosen)
    run_card(chosen.id, "runs")
