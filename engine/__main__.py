"""The engine from a shell: ``python -m engine models | techniques | runs | doctor | app | run
RECIPE.yaml``.
"""

import json
import math
import os
import platform
import subprocess
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from pkgutil import resolve_name
from typing import Annotated, Any
from uuid import uuid4

import psutil
import typer

from engine import __version__
from engine.config.registry import TECHNIQUES
from engine.errors import PlainError
from engine.events import Message, ProgressEvent
from engine.quantities import duration, megabytes
from engine.queries import WorkerQuery
from engine.recipe import Recipe
from engine.recipe.model_names import BUNDLED_MODELS
from engine.recipe.text import read_file
from engine.results.analysis.per_step_scores import step_scores
from engine.results.schema.record import RunRecord
from engine.results.store import unfinished
from engine.results.store.process_lease import current_owner
from engine.results.store.run_query import RunQuery
from engine.results.store.store import Store
from engine.runtime import settings
from engine.runtime.settings import home

PROGRAM = "compression-explorer"
FORMATS = {
    "parameters": "{:,.0f}".format,
    "size_bytes": "{:,.0f}".format,
    "bits_per_weight": "{:.2f}".format,
    "bits_per_parameter": "{:.2f}".format,
    "compression": "{:.2f}x".format,
}
PACKAGES = (
    "torch",
    "transformers",
    "datasets",
    "bitsandbytes",
    "distributed",
    "streamlit",
    "plotly",
    "pandas",
    "safetensors",
)


JSON = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

shell = typer.Typer(
    help="Compress neural networks and measure the effect.",
    add_completion=False,
    pretty_exceptions_enable=False,
)


class Stopped(Exception):
    """The user stopped a run; the message names what was kept."""


def command() -> None:
    """Run the console script."""
    sys.exit(main())


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0; 2 with one sentence on stderr for what the user can fix; 130 if stopped."""
    name = PROGRAM if Path(sys.argv[0]).stem == PROGRAM else "python -m engine"
    try:
        typer.main.get_command(shell)(arguments, prog_name=name)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except PlainError as error:
        print(error, file=sys.stderr)
        return 2
    except Stopped as stopped:
        print(f"\n{stopped}", file=sys.stderr)
        return 130
    return 0


def print_version(requested: bool) -> None:
    if requested:
        write_output(__version__)
        raise typer.Exit()


@shell.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=print_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Options before the command."""


@shell.command(
    help="Start the dashboard. Further arguments go to Streamlit.",
    short_help="Start the dashboard.",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def app(context: typer.Context) -> None:
    """Start the dashboard, and wait until it ends."""
    script = Path(__file__).resolve().parents[1] / "app.py"
    command = [sys.executable, "-m", "streamlit", "run", str(script), *context.args]
    if code := subprocess.call(command, cwd=script.parent):
        raise PlainError(f"The dashboard ended with exit code {code}; its messages are above.")


@shell.command(help="List the bundled models.")
def models(as_json: JSON = False) -> None:
    rows = [
        {
            "model": m.reference,
            "title": m.title,
            "about": m.about,
            "task": m.task.kind,
            "present": m.folder.is_dir(),
        }
        for m in BUNDLED_MODELS.values()
    ]
    print_result(
        as_json,
        rows,
        [f"{row['model']:26} {row['about']}" for row in rows]
        + ["Or any Hub id with an optional @revision, or a directory."],
    )


@shell.command(help="List compression techniques with all their options.")
def techniques(as_json: JSON = False) -> None:
    rows = [
        {
            "id": name,
            "title": config.title,
            "family": config.family,
            "summary": config.summary,
            "schema": config.model_json_schema(),
        }
        for name, config in TECHNIQUES.items()
    ]
    lines = []
    for row in rows:
        lines.append(f"{row['id']}: {row['summary']}")
        options = {
            name: option
            for name, option in row["schema"]["properties"].items()
            if name != "technique"
        }
        lines += [
            f"    {name} = {option.get('default')}: {option['description']}"
            for name, option in options.items()
        ]
    print_result(as_json, rows, lines)


@shell.command(help="List stored runs.")
def runs(as_json: JSON = False) -> None:
    """List the runs. Only --json reads complete records, which is slow for thousands of runs."""
    store = Store(home())
    if as_json:
        print_result(
            as_json, [json.loads(record.model_dump_json()) for record in store.records()], []
        )
        return
    rows = store.page(RunQuery(limit=-1)).rows
    lines = [
        (
            f"{row.id}  {row.created:%Y-%m-%d %H:%M}  {row.status:11}  {row.model}  "
            f"{row.label or row.message}"
        )
        for row in rows
    ]
    print_result(
        as_json,
        [],
        [printable(line) for line in lines]
        or ["No runs yet. Start one with: python -m engine run RECIPE.yaml"],
    )


def printable(line: str) -> str:
    """Replace control characters, because names come from untrusted files."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in line
    )


@shell.command(help="Show this machine: device, versions, memory, directories, cluster.")
def doctor(as_json: JSON = False) -> None:
    memory = psutil.virtual_memory()
    facts = {
        "engine": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        **asdict(resolve_name("engine.interactive.answers:answer")(WorkerQuery())),
        "versions": {name: installed_version(name) for name in PACKAGES},
        "cores": os.cpu_count(),
        "memory_bytes": memory.total,
        "memory_available_bytes": memory.available,
        "home": str(home()),
        "home_writable": is_writable(home()),
        "cluster": settings.scheduler() or "embedded",
    }
    if settings.scheduler():
        facts["cluster_status"] = resolve_name("engine.session.external_cluster:status")(
            settings.scheduler()
        )
    report = facts | {
        "versions": ", ".join(
            f"{name} {number or 'missing'}" for name, number in facts["versions"].items()
        )
    }
    print_result(as_json, facts, [f"{name:24} {value}" for name, value in report.items()])


def installed_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def is_writable(folder: Path) -> bool:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return existing.is_dir() and os.access(existing, os.W_OK)


def print_result(as_json: bool, data: object, lines: list[str]) -> None:
    write_output(json.dumps(data, indent=1, default=str) if as_json else "\n".join(lines))


def write_output(text: str) -> None:
    """Print to standard output. The reader, such as ``head``, may have closed it."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        with Path(os.devnull).open("w") as devnull:
            os.dup2(devnull.fileno(), sys.stdout.fileno())


@shell.command(help="Run a recipe and print the results.")
def run(
    recipe_file: Annotated[Path, typer.Argument(metavar="RECIPE.yaml")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on standard output.")
    ] = False,
    save: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write the compressed model there (packed, safetensors)."),
    ] = None,
) -> None:
    recipe = Recipe.from_yaml(read_file(recipe_file))
    record = RunRecord(
        id=uuid4().hex[:8], key=recipe.key(), recipe=recipe, owner=current_owner(), status="running"
    )
    resolve_name("engine.runtime.worker_setup:setup_worker")()
    try:
        outcome = resolve_name("engine.pipeline.run:run")(
            recipe, record.id, save=save, report=Bar()
        )
    except KeyboardInterrupt:
        raise Stopped(
            "Stopped. Finished layers are kept; run the same command to resume."
            if unfinished.finished_block_count(record.key)
            else "Stopped; nothing was kept."
        ) from None
    print(file=sys.stderr)
    save_run(
        record.model_copy(
            update={"status": "done", "summary": outcome.summary, "finished": datetime.now(UTC)}
        ),
        outcome.tables,
    )
    write_output(json.dumps(results_json(outcome), indent=1) if as_json else outcome_text(outcome))


def save_run(record: RunRecord, tables: Any) -> None:
    """Save the run in the store, where the dashboard lists it; if that fails, the result is still
    printed.
    """
    if error := Store(home()).save(record, tables):
        print(f"Not saved to the list of runs: {error}", file=sys.stderr)


class Bar:
    """Print a progress line to standard error."""

    def __init__(self) -> None:
        from engine.session.progress import Progress

        self.progress, self.shown = Progress(), 0.0

    def __call__(self, event: ProgressEvent) -> None:
        import time

        self.progress = self.progress.after(Message(event, time.time()))
        if sys.stderr.isatty():
            filled = round(24 * self.progress.overall)
            print(
                f"\r\033[K{'█' * filled}{'░' * (24 - filled)} {self.progress.sentence()}",
                end="",
                file=sys.stderr,
                flush=True,
            )
        elif event.done in (0, event.total) or time.time() - self.shown > 5:
            self.shown = time.time()
            print(self.progress.sentence(), file=sys.stderr, flush=True)


def results_json(outcome: Any) -> dict[str, Any]:
    """JSON output for automation. Values that were not measured are null."""
    more = {
        name: rows
        for name in ("salience", "sensitivity", "latency")
        if (rows := json_rows(getattr(outcome.tables, name)))
    }
    tables = {"tables": more} if more else {}
    return (
        json.loads(outcome.summary.model_dump_json())
        | {"layers": json_rows(outcome.tables.layers)}
        | tables
    )


def json_rows(table: Any) -> list[dict[str, Any]]:
    rows = table.to_dict("records")
    return [
        {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in row.items()
        }
        for row in rows
    ]


def outcome_text(outcome: Any) -> str:
    summary, before, after = outcome.summary, outcome.summary.baseline, outcome.summary.result
    name = "perplexity" if before.perplexity is not None else "accuracy"
    lines = [
        f"{summary.model} on {summary.device}, {duration(summary.seconds)}",
        (
            f"size        {megabytes(before.size_bytes)} -> {megabytes(after.size_bytes)} "
            f"({after.compression:.2f}x)"
        ),
        (
            f"bits        {before.bits_per_parameter:.2f} -> {after.bits_per_parameter:.2f} per "
            "parameter of the whole file"
        ),
        (
            f"            {before.bits_per_weight:.2f} -> {after.bits_per_weight:.2f} per "
            "compressed weight"
        ),
        f"{name:11} {getattr(before, name):.4g} -> {getattr(after, name):.4g}",
        *speed_lines(outcome.tables.latency),
        *stage_lines(outcome.tables.stages),
        f"protocol    {summary.protocol.measure}",
        *summary.notes,
    ]
    return "\n".join(lines)


def speed_lines(latency: Any) -> list[str]:
    """Medians of the whole model, or the reason why it was not timed."""
    whole_model = latency[latency["what"] == "whole model"]
    pairs = [
        (shape, timings.set_index("version").median_ms, timings.threads.iloc[0])
        for shape, timings in whole_model.groupby("shape", sort=False)
    ]
    timed = [
        (
            f"speed       {ms['original']:.3g} -> {ms['compressed']:.3g} ms for {shape}, "
            f"{threads} threads"
        )
        for shape, ms, threads in pairs
    ]
    unmeasured = latency[latency.kernel == ""]
    return timed + [
        f"speed       {measured}: {note}"
        for note, measured in dict.fromkeys(zip(unmeasured.note, unmeasured["what"], strict=True))
    ]


def stage_lines(stages: Any) -> list[str]:
    """Sizes and scores after each step, one table per split, if there are several steps or
    splits.
    """
    scores = step_scores(stages)
    lines = []
    for split, rows in scores.groupby("split", sort=False) if (scores.step > 0).sum() > 1 else ():
        after = rows.technique.where(rows.step > 0, "the original")
        shown = (
            rows.drop(columns=["step", "technique", "split"])
            .dropna(axis=1, how="all")
            .assign(after=after)
            .set_index("after")
            .rename_axis(None)
        )
        lines += [
            "",
            f"on {split}",
            *shown.to_string(
                formatters=FORMATS, float_format="{:.4f}".format, na_rep=""
            ).splitlines(),
        ]
    return lines


if __name__ == "__main__":
    sys.exit(main())
