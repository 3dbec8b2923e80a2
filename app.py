"""Compression Explorer's frame: navigation, theme and the model everything is about.

streamlit run app.py
"""

import sys
from pathlib import Path

import streamlit as st

sys.path.insert(0, str(Path(__file__).parent))  # so that it can be started from anywhere

from pages.parts.model_picker import pick_model
from pages.parts.words import glossary_button

PICTURES = Path(__file__).parent / "assets" / "pictures"
st.set_page_config(page_title="Compression Explorer", page_icon=str(PICTURES / "icon.svg"), layout="wide")
st.logo(str(PICTURES / "logo.svg"), icon_image=str(PICTURES / "icon.svg"), size="large")

PAGES = [
    st.Page("pages/start.py", title="Start", icon=":material/home:", default=True),
    st.Page("pages/model.py", title="Model", icon=":material/account_tree:"),
    st.Page("pages/quantize.py", title="Quantize", icon=":material/grid_4x4:"),
    st.Page("pages/runs.py", title="Runs", icon=":material/history:"),
    st.Page("pages/compare.py", title="Compare", icon=":material/compare_arrows:"),
]

page = st.navigation(PAGES)
with st.sidebar:
    pick_model()
    glossary_button()
page.run()
