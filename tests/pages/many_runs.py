"""More runs than fit on a page."""

from streamlit.testing.v1 import AppTest

from engine.recipe import Recipe
from engine.results.schema.record import RunRecord
from engine.results.store import parquet
from engine.results.store.store import Store
from tests.runs import record, scores, summary, tables

MANY = 130
MODELS = ("bundled:docs-lm", "Qwen/Qwen3-0.6B")


def numbered_run(number: int) -> RunRecord:
    """Synthetic run; every tenth failed, and the others have two models and two techniques."""
    technique = "gptq" if number % 3 else "magnitude"
    recipe = Recipe.from_dict(
        {"model": MODELS[number % 2], "steps": [{"technique": technique}], "seed": number}
    )
    if number % 10 == 9:
        return record(
            number, "failed", recipe=recipe, message="Out of memory; choose a smaller model."
        )
    numbers = summary(
        f"run-{number:04}", model=recipe.model, result=scores(500 + number, 11.0, compression=2.0)
    )
    return record(number, "done", recipe=recipe, summary=numbers)


def put(store: Store, run: RunRecord, with_tables: bool = False) -> None:
    """Write runs as another program would, without waiting for the disk."""
    store.folder(run.id).mkdir(parents=True)
    (store.folder(run.id) / "record.json").write_text(run.model_dump_json())
    if with_tables:
        parquet.save(tables(), store.folder(run.id))


def listed_runs(app: AppTest) -> list[str]:
    return app.dataframe[0].value["run"].tolist()


def newest(number: int, skipped: int = 0) -> list[str]:
    return [f"run-{n:04}" for n in range(MANY - 1 - skipped, MANY - 1 - skipped - number, -1)]
