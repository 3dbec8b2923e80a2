"""Compression Explorer: the dashboard's server.

streamlit run app.py
"""

import importlib
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import streamlit as st

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # so that it can be started from anywhere


@asynccontextmanager
async def warmed(app: st.App) -> AsyncIterator[None]:
    """What every page imports is read while the browser of the first visitor still loads Streamlit's own scripts."""
    threading.Thread(target=importlib.import_module, args=("pages.parts.results",), daemon=True).start()
    yield


# The script lies beside the pages: a main script with a folder called pages beside it is taken for Streamlit's older kind of app.
app = st.App(HERE / "pages" / "frame.py", lifespan=warmed)
