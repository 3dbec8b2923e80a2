"""Runs page: all runs, page by page, and their results."""

import streamlit as st

from pages.widgets.queries import stop_on_error
from pages.widgets.runs.run_card import run_card
from pages.widgets.runs.run_filters import filter_runs, first_page, page_buttons, query_from
from pages.widgets.runs.run_list import chosen_run, delete_button, run_table
from pages.widgets.state import session

st.title("Runs")
query = query_from("runs-query")
with stop_on_error():
    page = session().store.page(query)
    if query.after and not page.rows:  # its runs have been deleted
        query = first_page(query, "runs")
        page = session().store.page(query)
if not page.total:
    st.info("No runs yet. Start one on the Start page; it takes a few seconds.")
    st.stop()
filter_runs(query, page, "runs")
if page.rows:
    run_table(page)
else:
    st.info("No run matches the search and filters. Use fewer words, or clear the filters.")
page_buttons(query, page, "runs")
chosen = chosen_run()
if chosen is None:
    st.caption("Choose a run to open it.")
else:
    delete_button(chosen)
    run_card(chosen.id, "runs")
