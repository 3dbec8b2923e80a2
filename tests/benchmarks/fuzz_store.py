"""Damaged stores of runs on every page that reads them: tracebacks, pages over 10 s, and peak
memory.

    python -m tests.benchmarks.fuzz_store [STORES] [SEED]

Each store has a few runs and one to six kinds of damage from `tests/store_damage.py`. Pages are run
by Streamlit's AppTest, without workers.
"""

import logging
import os
import random
import resource
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from time import process_time
from traceback import format_exc

from streamlit.testing.v1 import AppTest

from engine.errors import PlainError
from engine.results.store.store import Store
from tests.store_damage import damage, fill_store

PAGES, SLOW_SECONDS = ("runs", "compare", "start", "ten_times"), 10
FRAME = Path("pages/frame.py").resolve()


class Swallowed(logging.Handler):
    """Handler that counts errors that pages replaced by a sentence, which is allowed."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def emit(self, entry: logging.LogRecord) -> None:
        self.count += 1


def visits(store: Store) -> Iterator[tuple[str, AppTest]]:
    """Every page about runs, with each run opened on the Runs page, and all of them compared."""
    runs = sorted(path.name for path in store.folders.iterdir() if not path.name.startswith("."))
    for run in runs:
        yield f"runs, {run} open", open_page("runs", run=run)
    yield "compare", open_page("compare", compared=runs)
    for page in ("start", "ten_times"):
        yield page, open_page(page)


def open_page(page: str, **remembered) -> AppTest:
    app = AppTest.from_file(FRAME, default_timeout=120)
    for name, value in remembered.items():
        app.session_state[name] = value
    return app.switch_page(f"{page}.py").run()


def without_workers() -> None:
    raise PlainError("There are no workers here; nothing is to be computed.")


def fuzz(stores: int, seed: int) -> None:
    from engine.session import cluster_connection as link
    from pages.widgets import state

    link.import_and_connect = without_workers
    swallowed, tracebacks, slow, pages, slowest = Swallowed(), [], [], 0, 0.0
    logging.getLogger("pages.widgets.queries").addHandler(swallowed)
    for number in range(stores):
        draw = random.Random(f"{seed}-{number}")
        with tempfile.TemporaryDirectory() as home:
            os.environ["COMPRESSION_EXPLORER_HOME"] = home
            store = Store(Path(home))
            fill_store(store, 2)
            blows = [damage(store, draw) for _ in range(draw.randrange(1, 7))]
            state.session.clear()
            try:
                walk, began = visits(store), process_time()
                for what, app in walk:
                    took, began = process_time() - began, process_time()
                    pages, slowest = pages + 1, max(slowest, took)
                    if app.exception:
                        tracebacks.append(
                            (number, what, blows, [each.value for each in app.exception])
                        )
                    if took > SLOW_SECONDS:
                        slow.append((number, what, blows, took))
                for run in [each.id for each in store.records()]:
                    store.delete(run)
            except Exception:
                tracebacks.append((number, "the store", blows, format_exc()))
            state.session().close()
            with suppress(PlainError, OSError):
                shutil.rmtree(store.folders, ignore_errors=True)
    for each in [*tracebacks, *slow]:
        print(each)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(
        f"{stores} stores (seed {seed}), {pages} pages: {len(tracebacks)} tracebacks, "
        f"{len(slow)} over {SLOW_SECONDS} s (slowest {slowest:.1f} s), "
        f"{swallowed.count} runs or views said that they cannot be shown, peak memory "
        f"{memory:.0f} MB"
    )
    sys.exit(bool(tracebacks or slow))


if __name__ == "__main__":
    fuzz(
        int(sys.argv[1]) if len(sys.argv) > 1 else 1000,
        int(sys.argv[2]) if len(sys.argv) > 2 else 0,
    )
