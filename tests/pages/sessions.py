"""Browser sessions without a browser: Streamlit's AppTest, led through app.py."""

import runpy
from pathlib import Path

from streamlit.runtime.scriptrunner import script_runner
from streamlit.testing.v1 import AppTest

APP = Path(__file__).resolve().parents[2] / "app.py"
PAGES = ("start", "model", "quantize", "runs", "compare")
PATIENCE_SECONDS = 300  # the machine may be busy with something else

# At each of its runs AppTest takes the folder pages for Streamlit's older kind of app, where a page runs without the frame around it.
script_runner._mpa_v1 = runpy.run_path


def opened(page: str = "start", query: dict[str, str] | None = None, **remembered) -> AppTest:
    """A browser session that has just come to a page; ``remembered`` is its session state."""
    app = AppTest.from_file(str(APP), default_timeout=PATIENCE_SECONDS)
    for name, value in remembered.items():
        app.session_state[name] = value
    app.query_params.update(query or {})
    return app.run() if page == "start" else turned(app.run(), page, query)


def turned(app: AppTest, page: str, query: dict[str, str] | None = None) -> AppTest:
    """The same session on another page."""
    app.switch_page(f"pages/{page}.py")
    app.query_params.update(query or {})
    return app.run()
