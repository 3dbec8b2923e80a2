"""Visits every page, makes a run on the way in a home without runs, and says what the screen's
process has imported.

python tests/pages/visit_every_page.py MODEL_FOLDER TEXT_FILE
"""

import sys
import time
from pathlib import Path

from streamlit.testing.v1 import AppTest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.pages.sessions import PATIENCE_SECONDS, open_page, switch_page

HEAVY = {
    "torch",
    "transformers",
    "bitsandbytes",
    "peft",
    "datasets",
    "accelerate",
    "sklearn",
    "torchvision",
}


def show_page(app: AppTest, page: str) -> AppTest:
    switch_page(app, page)
    assert not app.exception, app.exception
    print(page)
    return app


def wait_for_results(app: AppTest) -> AppTest:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(app.metric) < 4:
        assert time.monotonic() < deadline and not app.exception and not app.error, (
            app.exception,
            app.error,
        )
        time.sleep(0.2)
        app.run()
    return app


def run_quantization(app: AppTest, model: str, text: str) -> AppTest:
    app.text_input(key=f"measure-{model}-text").set_value(text)
    app.number_input(key=f"measure-{model}-context").set_value(16).run()
    app.button(key="quantize-run").click().run()
    return wait_for_results(app)


def visit(model: str, text: str) -> None:
    app = open_page(model=model)
    show_page(show_page(app, "start"), "model")
    run_quantization(show_page(app, "quantize"), model, text)
    show_page(app, "prune")
    show_page(app, "factorize")
    show_page(app, "distill")
    show_page(app, "train")
    show_page(app, "pipeline")
    show_page(app, "ten_times")
    wait_for_results(show_page(app, "runs"))
    show_page(app, "compare")


if __name__ == "__main__":
    visit(*sys.argv[1:])
    print(*sorted(HEAVY & set(sys.modules)) or ["nothing-heavy"])
    from pages.widgets.state import session

    session().close()
