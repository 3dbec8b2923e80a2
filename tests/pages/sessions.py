"""Browser sessions without a browser: Streamlit's AppTest, led through the frame."""

import time
from collections.abc import Callable
from pathlib import Path

from streamlit.testing.v1 import AppTest

ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    "start",
    "model",
    "quantize",
    "prune",
    "factorize",
    "distill",
    "train",
    "pipeline",
    "ten_times",
    "runs",
    "compare",
)
PATIENCE_SECONDS = 300  # the machine may be busy with something else


def open_page(page: str = "start", query: dict[str, str] | None = None, **remembered) -> AppTest:
    """A browser session that has just come to a page; ``remembered`` is its session state."""
    app = AppTest.from_file(str(ROOT / "pages" / "frame.py"), default_timeout=PATIENCE_SECONDS)
    for name, value in remembered.items():
        app.session_state[name] = value
    app.query_params.update(query or {})
    return app.switch_page(f"{page}.py").run()


def switch_page(app: AppTest, page: str, query: dict[str, str] | None = None) -> AppTest:
    """The same session on another page."""
    app.switch_page(f"{page}.py")
    app.query_params.update(query or {})
    return app.run()


def until(app: AppTest, seen: Callable[[AppTest], bool]) -> AppTest:
    """Reload, as the page does by itself, until something is to be seen."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not seen(app):
        assert time.monotonic() < deadline, words_on(app)
        time.sleep(0.2)
        app.run()
    return app


def words_on(app: AppTest) -> str:
    """Every word on the page, as written: Markdown and all."""
    elements = [
        *app.markdown,
        *app.caption,
        *app.info,
        *app.error,
        *app.warning,
        *app.metric,
        *app.title,
    ]
    return "\n".join(
        f"{getattr(element, 'label', '') or ''} {element.value}" for element in elements
    )


def sentences(app: AppTest) -> list[str]:
    """Error messages on the page. Asserts that each is a sentence and none a traceback."""
    assert not app.exception, app.exception
    said = [error.value for error in app.error]
    assert all(
        line.rstrip().endswith((".", "\\."))
        and "Traceback" not in line
        and "\n" not in line.strip()
        for line in said
    )
    return said
