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
from starlette.middleware import Middleware

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # so that it can be started from anywhere

from engine.runtime import settings  # noqa: E402
from pages.widgets.server_guard import AllowedHosts, VisitorCookie  # noqa: E402

try:
    settings.sharing()  # do not start with an invalid limit
except ValueError as error:
    sys.exit(str(error))


@asynccontextmanager
async def preload(app: st.App) -> AsyncIterator[None]:
    """Import what every page needs while the first browser still loads Streamlit's scripts."""
    threading.Thread(
        target=importlib.import_module, args=("pages.widgets.runs.results",), daemon=True
    ).start()
    yield


# The script is inside pages/: Streamlit treats a main script next to a folder named pages as an
# old-style multipage app.
app = st.App(
    HERE / "pages" / "frame.py",
    lifespan=preload,
    middleware=[Middleware(AllowedHosts), Middleware(VisitorCookie)],
)
