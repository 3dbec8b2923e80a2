"""Frame of every page: navigation, theme and model picker."""

from pathlib import Path

import streamlit as st

from pages.widgets.glossary_help import glossary_button
from pages.widgets.loading import page_painted
from pages.widgets.model_picker import pick_model
from pages.widgets.recipes.recipe_link import open_link

HERE = Path(__file__).parent
IMAGES = HERE.parent / "assets" / "pictures"
st.set_page_config(
    page_title="Compression Explorer", page_icon=str(IMAGES / "icon.svg"), layout="wide"
)
st.logo(str(IMAGES / "logo.svg"), icon_image=str(IMAGES / "icon.svg"), size="large")

PAGES = [
    st.Page(HERE / "start.py", title="Start", icon=":material/home:", default=True),
    st.Page(HERE / "model.py", title="Model", icon=":material/account_tree:"),
    st.Page(HERE / "quantize.py", title="Quantize", icon=":material/grid_4x4:"),
    st.Page(HERE / "prune.py", title="Prune", icon=":material/content_cut:"),
    st.Page(HERE / "factorize.py", title="Factorize", icon=":material/call_split:"),
    st.Page(HERE / "distill.py", title="Distill", icon=":material/school:"),
    st.Page(HERE / "train.py", title="Train", icon=":material/model_training:"),
    st.Page(HERE / "pipeline.py", title="Pipeline", icon=":material/linear_scale:"),
    st.Page(HERE / "ten_times.py", title="Ten times smaller", icon=":material/compress:"),
    st.Page(HERE / "runs.py", title="Runs", icon=":material/history:"),
    st.Page(HERE / "compare.py", title="Compare", icon=":material/compare_arrows:"),
]

page = st.navigation(PAGES)
open_link()
with st.sidebar:
    pick_model()
    glossary_button()
with page_painted(page.url_path):
    page.run()
