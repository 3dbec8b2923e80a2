"""Server time and bytes sent of the pages that list runs, with 2,000 runs in the store.

    python -m tests.benchmarks.many_runs [RUNS]

Records are synthetic, written as the store writes them; the newest forty have tables. Pages are run
by Streamlit's AppTest, without browser and workers. Bytes are those of the messages to a browser.
Processor time shows how long a page would take on an idle machine.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stdout
from datetime import timedelta
from io import StringIO
from pathlib import Path
from time import perf_counter, thread_time

from streamlit.runtime.scriptrunner import script_runner
from streamlit.testing.v1 import AppTest, local_script_runner

from engine.errors import PlainError
from engine.recipe import Recipe
from engine.results.schema.record import RunRecord
from engine.results.store import parquet
from tests.benchmarks.measurement import Measurement, show
from tests.runs import START, layer, scores, summary, tables

RUNS, VISITS, WITH_TABLES = 2000, 5, 40
STEPS = (
    {"technique": "round-to-nearest", "bits": 4},
    {"technique": "round-to-nearest", "bits": 3},
    {"technique": "gptq", "bits": 4},
    {"technique": "awq"},
    {"technique": "magnitude"},
    {"technique": "wanda"},
    {"technique": "svd"},
    {"technique": "distill"},
)
MODELS = (
    "bundled:docs-lm",
    "HuggingFaceTB/SmolLM2-135M",
    "Qwen/Qwen3-0.6B",
    "openai-community/gpt2",
)


def synthetic_run(number: int) -> RunRecord:
    """Synthetic run; higher numbers are newer, and one in ten failed."""
    recipe = Recipe.from_dict(
        {
            "model": MODELS[number % len(MODELS)],
            "seed": number,
            "steps": [STEPS[number % len(STEPS)]],
        }
    )
    known = {
        "id": f"run-{number:05}",
        "key": f"{number:016x}",
        "recipe": recipe,
        "created": START + timedelta(minutes=number),
    }
    if number % 10 == 9:
        return RunRecord(
            **known,
            status="failed",
            message="The model does not fit into memory; choose a smaller one.",
        )
    result = scores(1_000_000 + 1000 * (number % 97), 11 + number % 7, compression=2 + number % 5)
    numbers = summary(
        f"run-{number:05}",
        result=result,
        baseline=scores(4_000_000),
        model=recipe.model,
        notes=("Calibrated on 64 windows.",),
    )
    return RunRecord(**known, status="done", summary=numbers)


def fill(home: Path, runs: int) -> None:
    """Write a folder for each run, as the store does."""
    for number in range(runs):
        run = synthetic_run(number)
        folder = home / "runs" / run.id
        folder.mkdir(parents=True)
        (folder / "recipe.yaml").write_text(run.recipe.to_yaml())
        (folder / "record.json").write_text(run.model_dump_json(indent=1))
        if number >= runs - WITH_TABLES:
            parquet.save(
                tables(*(layer(f"model.layers.{i}.mlp.down_proj") for i in range(30))), folder
            )


class Watch:
    """Measures each script run without AppTest's overhead: milliseconds, processor milliseconds and
    bytes sent.
    """

    def __init__(self):
        self.took = self.busy = 0.0
        self.bytes = 0
        parse, run = (
            local_script_runner.parse_tree_from_messages,
            script_runner.ScriptRunner._run_script_thread,
        )

        def count_bytes(messages):
            self.bytes = sum(message.ByteSize() for message in messages)
            return parse(messages)

        def time_script(runner):
            began, worked = perf_counter(), thread_time()
            run(runner)
            self.took, self.busy = 1000 * (perf_counter() - began), 1000 * (thread_time() - worked)

        local_script_runner.parse_tree_from_messages = count_bytes
        script_runner.ScriptRunner._run_script_thread = time_script


def page_cost(page: str, watch: Watch) -> tuple[float, float, int]:
    """Milliseconds and processor milliseconds of a page's script in a new browser session, and
    bytes sent.
    """
    app = AppTest.from_file(Path("pages/frame.py").resolve(), default_timeout=600)
    app.session_state["example-seen"] = True  # otherwise Start waits before it draws its example
    app.switch_page(f"{page}.py").run()
    if app.exception or app.error:
        raise RuntimeError(f"{page}: {[each.value for each in [*app.exception, *app.error]]}")
    return watch.took, watch.busy, watch.bytes


def in_a_shell(*words: str) -> tuple[float, int]:
    from engine.__main__ import main

    began, said = perf_counter(), StringIO()
    with redirect_stdout(said):
        main(list(words))
    return 1000 * (perf_counter() - began), len(said.getvalue().encode())


def without_workers() -> None:
    raise PlainError(
        "This benchmark has no workers, which would take the processor from what is measured."
    )


def measurements(runs: int) -> Iterator[Measurement]:
    from engine.results.analysis.runs import latest_similar_run
    from engine.session import cluster_connection as link
    from pages.widgets.state import session

    link.import_and_connect = without_workers

    with tempfile.TemporaryDirectory() as home:
        os.environ["COMPRESSION_EXPLORER_HOME"] = home
        fill(Path(home), runs)
        began = perf_counter()
        session()
        yield Measurement(
            f"First start: {runs:,} records are read", ((perf_counter() - began) * 1000,), "ms"
        )
        watch = Watch()
        for page in ("start", "runs", "compare"):
            rounds = [page_cost(page, watch) for _ in range(1 + VISITS)][1:]
            what = f"{page.capitalize()} with {runs:,} runs"
            yield Measurement(
                f"{what}, at the server", tuple(took for took, _, _ in rounds), "ms", "500 ms"
            )
            yield Measurement(
                f"{what}, processor time", tuple(busy for _, busy, _ in rounds), "ms", "500 ms"
            )
            yield Measurement(f"{what}, sent", tuple(size / 1000 for _, _, size in rounds), "kB")
        recipe = synthetic_run(0).recipe
        found = tuple(
            duration_ms(lambda: latest_similar_run(session().store.similar_runs(recipe), recipe))
            for _ in range(VISITS)
        )
        yield Measurement("Past run that a forecast learns from", found, "ms")
        yield Measurement(
            "python -m engine runs, once imported",
            tuple(in_a_shell("runs")[0] for _ in range(VISITS)),
            "ms",
        )
        session().close()


def duration_ms(work) -> float:
    began = perf_counter()
    work()
    return 1000 * (perf_counter() - began)


if __name__ == "__main__":
    show(measurements(int(sys.argv[1]) if len(sys.argv) > 1 else RUNS))
