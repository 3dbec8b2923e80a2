"""Visits every page, makes a run on the way in a home without runs, and says what the screen's
process has imported.

python tests/pages/visit_every_page.py MODEL_FOLDER TEXT_FILE
"""

import sys
import time
from pathlib import Path

from streamlit.testing.v1 import AppTest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.pages.sessions import PATIENCE_SECONDS, opened, turned

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


def shown(app: AppTest, page: str) -> AppTest:
    turned(app, page)
    assert not app.exception, app.exception
    print(page)
    return app


def finished(app: AppTest) -> AppTest:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(app.metric) < 4:
        assert time.monotonic() < deadline and not app.exception and not app.error, (
            app.exception,
            app.error,
        )
        time.sleep(0.2)
        app.run()
    return app


def quantized(app: AppTest, model: str, text: str) -> AppTest:
    app.text_input(key=f"measure-{model}-text").set_value(text)
    app.number_input(key=f"measure-{model}-context").set_value(16).run()
    app.button(key="quantize-run").click().run()
    return finished(app)


def visit(model: str, text: str) -> None:
    app = opened(model=model)
    shown(shown(app, "start"), "model")
    quantized(shown(app, "quantize"), model, text)
    shown(app, "prune")
    shown(app, "factorize")
    shown(app, "distill")
    shown(app, "train")
    shown(app, "pipeline")
    shown(app, "ten_times")
    finished(shown(app, "runs"))
    shown(app, "compare")


if __name__ == "__main__":
    visit(*sys.argv[1:])
    print(*sorted(HEAVY & set(sys.modules)) or ["nothing-heavy"])
    from pages.widgets.state import session

    session().close()
