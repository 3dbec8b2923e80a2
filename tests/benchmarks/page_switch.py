"""Server time of a page that was open before. A stored run of the bundled model is shown wherever a
page can show it.

python -m tests.benchmarks.page_switch

Pages are run by Streamlit's AppTest: the script from its first to its last line, with everything it
asks of the workers, without a browser.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

from streamlit.testing.v1 import AppTest

from engine.recipe import Recipe
from engine.results.store.store import Store
from tests.benchmarks.measurement import Measurement, show
from tests.benchmarks.models import text_in

PAGES = tuple(
    path.stem
    for path in sorted(Path("pages").glob("*.py"))
    if path.stem not in ("__init__", "frame")
)
VISITS = 10


def measurements() -> Iterator[Measurement]:
    with tempfile.TemporaryDirectory() as home:
        os.environ["COMPRESSION_EXPLORER_HOME"] = home
        app = AppTest.from_file(Path("pages/frame.py").resolve(), default_timeout=600)
        app.session_state["run"] = stored_run(Path(home))
        app.run()
        rounds = [{page: page_script_ms(app, page) for page in PAGES} for _ in range(1 + VISITS)][
            1:
        ]
        for page in PAGES:
            yield Measurement(
                f"Switch to {page.capitalize()}, at the server",
                tuple(took[page] for took in rounds),
                "ms",
                "500 ms",
            )
        close_session()  # before the folder goes


def stored_run(home: Path) -> str:
    """A real run of the bundled model, its quality measured on a short text. Returns its id."""
    task = {"kind": "language-modeling", "text": str(text_in(home)), "tokens": 2048}
    recipe = home / "recipe.yaml"
    recipe.write_text(
        Recipe.from_dict({"task": task, "steps": [{"technique": "round-to-nearest"}]}).to_yaml(),
        "utf8",
    )
    subprocess.run(
        [sys.executable, "-m", "engine", "run", str(recipe)], check=True, capture_output=True
    )
    return Store(home).records()[0].id


def page_script_ms(app: AppTest, page: str) -> float:
    """Milliseconds of the page's script."""
    app.switch_page(f"{page}.py")
    began = perf_counter()
    app.run()
    took = (perf_counter() - began) * 1000
    if app.exception or app.error:
        raise RuntimeError(f"{page}: {[*app.exception, *app.error]}")
    return took


def close_session() -> None:
    from pages.widgets.state import session

    session().close()


if __name__ == "__main__":
    show(measurements())
