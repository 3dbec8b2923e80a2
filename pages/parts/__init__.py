"""Streamlit widgets that pages are put together from."""

import streamlit as st
from streamlit.runtime.pages_manager import PagesManager

# Streamlit takes every folder called pages for its older kind of app, until app.py has called st.navigation once. Whoever was first to
# come to a fresh server by the address of another page than Start would stand on a bare script: no menu, no model, a narrow column.
if PagesManager.uses_pages_directory:
    PagesManager.uses_pages_directory = False
    st.rerun()
