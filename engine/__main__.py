"""The engine from a shell: ``python -m engine models | techniques | runs | doctor | run RECIPE.yaml``."""

import argparse
import json
import math
import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from pkgutil import resolve_name
from uuid import uuid4

import psutil

from engine import __version__
from engine.catalog import TECHNIQUES
from engine.catalog.models import BUNDLED
from engine.errors import PlainError
from engine.recipe import Recipe
from engine.results import unfinished
from engine.results.record import RunRecord
from engine.results.standings import standings
from engine.results.store import Store, home, owner

SAID = {"parameters": "{:,.0f}".format, "size_bytes": "{:,.0f}".format, "bits_per_weight": "{:.2f}".format, "compression": "{:.2f}x".format}
PACKAGES = ("torch", "transformers", "datasets", "bitsandbytes", "distributed", "streamlit", "plotly", "pandas", "safetensors")


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0, or 2 with one sentence on stderr for what a person can mend."""
    asked = parser().parse_args(arguments)
    try:
        asked.does(asked)
    except PlainError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(f"\n{stop}" if str(stop) else "\nStopped; nothing was kept.", file=sys.stderr)
        return 130
    return 0


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m engine", description="Compress neural networks and measure what it did to them.")
    top.add_argument("--version", action="version", version=__version__)
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    for name, does, about in (
        ("models", models, "the bundled models"),
        ("techniques", techniques, "what can be done to a model, with every option"),
        ("runs", runs, "the runs kept so far"),
        ("doctor", doctor, "this machine: device, versions, memory, directories, cluster"),
    ):
        command = commands.add_parser(name, help=about, description=about)
        command.add_argument("--json", action="store_true", help="for programs")
        command.set_defaults(does=does)
    command = commands.add_parser("run", help="carry out a recipe", description="Carry out a recipe and print what it did.")
    command.add_argument("recipe", type=Path, metavar="RECIPE.yaml")
    command.add_argument("--json", action="store_true", help="one JSON object on standard output")
    command.add_argument("--save", type=Path, metavar="DIR", help="write the compressed model there (packed, safetensors)")
    command.set_defaults(does=run)
    return top


def models(asked: argparse.Namespace) -> None:
    rows = [{"model": m.reference, "title": m.title, "about": m.about, "task": m.task.kind, "present": m.folder.is_dir()} for m in BUNDLED.values()]
    show(asked, rows, [f"{row['model']:26} {row['about']}" for row in rows] + ["Or any Hub id with an optional @revision, or a directory."])


def techniques(asked: argparse.Namespace) -> None:
    rows = [
        {"id": name, "title": how.title, "family": how.family, "summary": how.summary, "schema": how.model_json_schema()}
        for name, how in TECHNIQUES.items()
    ]
    lines = []
    for row in rows:
        lines.append(f"{row['id']}: {row['summary']}")
        options = {name: option for name, option in row["schema"]["properties"].items() if name != "technique"}
        lines += [f"    {name} = {option.get('default')}: {option['description']}" for name, option in options.items()]
    show(asked, rows, lines)


def runs(asked: argparse.Namespace) -> None:
    records = Store(home()).records()
    lines = [f"{r.id}  {r.created:%Y-%m-%d %H:%M}  {r.status:11}  {r.recipe.model}  {r.label}" for r in records]
    show(asked, [json.loads(r.model_dump_json()) for r in records], lines or ["No runs yet. Start one with: python -m engine run RECIPE.yaml"])


def doctor(asked: argparse.Namespace) -> None:
    memory = psutil.virtual_memory()
    facts = {
        "engine": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        **resolve_name("engine.work.answers:doctor")(),
        "versions": {name: installed(name) for name in PACKAGES},
        "cores": os.cpu_count(),
        "memory_bytes": memory.total,
        "memory_available_bytes": memory.available,
        "home": str(home()),
        "home_writable": writable(home()),
        "cluster": os.environ.get("DASK_SCHEDULER_ADDRESS") or "embedded",
    }
    said = facts | {"versions": ", ".join(f"{name} {number or 'missing'}" for name, number in facts["versions"].items())}
    show(asked, facts, [f"{name:24} {value}" for name, value in said.items()])


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def writable(folder: Path) -> bool:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return existing.is_dir() and os.access(existing, os.W_OK)


def show(asked: argparse.Namespace, data: object, lines: list[str]) -> None:
    print(json.dumps(data, indent=1, default=str) if asked.json else "\n".join(lines))


def run(asked: argparse.Namespace) -> None:
    recipe = read_recipe(asked.recipe)
    record = RunRecord(id=uuid4().hex[:8], key=recipe.key(), recipe=recipe, owner=owner(), status="running")
    resolve_name("engine.work.quiet:ready")()
    try:
        outcome = resolve_name("engine.work.run:run")(recipe, record.id, save=asked.save, report=Bar())
    except KeyboardInterrupt:
        kept = "Stopped; what it had finished is kept, and the same command goes on from there."
        raise KeyboardInterrupt(*[kept] if unfinished.blocks_kept(record.key) else []) from None
    print(file=sys.stderr)
    keep(record.model_copy(update={"status": "done", "summary": outcome.summary, "finished": datetime.now(UTC)}), outcome.tables)
    print(json.dumps(as_json(outcome), indent=1) if asked.json else as_text(outcome))


def read_recipe(path: Path) -> Recipe:
    try:
        return Recipe.from_yaml(path.read_text("utf8"))
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not text"
        raise PlainError(f"The recipe {str(path)!r} cannot be read: {why}; give the path of a YAML file.") from None


def keep(record: RunRecord, tables: object) -> None:
    """In the store, so that the dashboard lists it too; a store that cannot be written does not cost the result."""
    try:
        Store(home()).add(record)
        Store(home()).finish(record, tables)
    except PlainError as error:
        print(f"Not kept in the list of runs. {error}", file=sys.stderr)


class Bar:
    """A progress line on standard error."""

    def __init__(self):
        from engine.session.progress import Progress

        self.progress, self.shown = Progress(), 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        import time

        self.progress = self.progress.after({"stage": stage, "done": done, "total": total, "time": time.time()})
        if sys.stderr.isatty():
            filled = round(24 * self.progress.overall)
            print(f"\r\033[K{'█' * filled}{'░' * (24 - filled)} {self.progress.sentence()}", end="", file=sys.stderr, flush=True)
        elif done in (0, total) or time.time() - self.shown > 5:
            self.shown = time.time()
            print(self.progress.sentence(), file=sys.stderr, flush=True)


def as_json(outcome: object) -> dict:
    """The contract for automation. What was not measured is null."""
    more = {name: rows for name in ("salience", "sensitivity", "latency") if (rows := records(getattr(outcome.tables, name)))}
    tables = {"tables": more} if more else {}
    return json.loads(outcome.summary.model_dump_json()) | {"layers": records(outcome.tables.layers)} | tables


def records(table: object) -> list[dict]:
    rows = table.to_dict("records")
    return [{name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()} for row in rows]


def as_text(outcome: object) -> str:
    said, before, after = outcome.summary, outcome.summary.baseline, outcome.summary.result
    name = "perplexity" if before.perplexity is not None else "accuracy"
    lines = [
        f"{said.model} on {said.device}, {said.seconds:.1f} s",
        f"size        {before.size_bytes / 1e6:.2f} MB -> {after.size_bytes / 1e6:.2f} MB ({after.compression:.2f}x)",
        f"weights     {before.bits_per_weight:.2f} -> {after.bits_per_weight:.2f} bits each",
        f"{name:11} {getattr(before, name):.4g} -> {getattr(after, name):.4g}",
        *speed_lines(outcome.tables.latency),
        *stage_lines(outcome.tables.stages),
        f"protocol    {said.protocol.measure}",
        *said.notes,
    ]
    return "\n".join(lines)


def speed_lines(latency: object) -> list[str]:
    """The whole model's medians, or why nothing was timed."""
    whole = latency[latency["what"] == "whole model"]
    pairs = [(shape, each.set_index("version").median_ms, each.threads.iloc[0]) for shape, each in whole.groupby("shape", sort=False)]
    timed = [f"speed       {ms['original']:.3g} -> {ms['compressed']:.3g} ms for {shape}, {threads} threads" for shape, ms, threads in pairs]
    without = latency[latency.kernel == ""]
    return timed + [f"speed       {note.rstrip('.')} ({what})" for note, what in dict.fromkeys(zip(without.note, without["what"], strict=True))]


def stage_lines(stages: object) -> list[str]:
    """How the model stood after each step, one table a split, where there are several steps or splits."""
    known = standings(stages)
    lines = []
    for split, rows in known.groupby("split", sort=False) if (known.step > 0).sum() > 1 else ():
        after = rows.technique.where(rows.step > 0, "the original")
        shown = rows.drop(columns=["step", "technique", "split"]).dropna(axis=1, how="all").assign(after=after).set_index("after").rename_axis(None)
        lines += ["", f"on {split}", *shown.to_string(formatters=SAID, float_format="{:.4f}".format, na_rep="").splitlines()]
    return lines


if __name__ == "__main__":
    sys.exit(main())
