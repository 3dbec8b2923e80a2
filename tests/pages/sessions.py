"""Browser sessions without a browser: Streamlit's AppTest, led through the frame."""

from pathlib import Path

from streamlit.testing.v1 import AppTest

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("start", "model", "quantize", "prune", "factorize", "distill", "train", "pipeline", "ten_times", "runs", "compare")
PATIENCE_SECONDS = 300  # the machine may be busy with something else


def opened(page: str = "start", query: dict[str, str] | None = None, **remembered) -> AppTest:
    """A browser session that has just come to a page; ``remembered`` is its session state."""
    app = AppTest.from_file(str(ROOT / "pages" / "frame.py"), default_timeout=PATIENCE_SECONDS)
    for name, value in remembered.items():
        app.session_state[name] = value
    app.query_params.update(query or {})
    return app.switch_page(f"{page}.py").run()


def turned(app: AppTest, page: str, query: dict[str, str] | None = None) -> AppTest:
    """The same session on another page."""
    app.switch_page(f"{page}.py")
    app.query_params.update(query or {})
    return app.run()
