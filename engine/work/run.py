"""Recipe in, result out: measure the original, compress block by block, measure what was written."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from engine.catalog.technique import Technique
from engine.errors import Cancelled, PlainError
from engine.recipe import Recipe
from engine.results import disk
from engine.results.outcome import Outcome
from engine.results.record import Summary
from engine.results.tables import ROWS, ChannelRow, Tables, table
from engine.work.layers import Layer, blocks_of, chosen
from engine.work.measure.error import Judged, kept_row, level_rows
from engine.work.measure.inputs import sampled_inputs
from engine.work.measure.memory import give_back, peak_rss_bytes, reset_peak
from engine.work.methods import compress, plan
from engine.work.models import Folder, check_finite, resolve
from engine.work.opened import Opened, compute_place, opened
from engine.work.samples import sample_rows
from engine.work.scores import baseline_scores, result_scores
from engine.work.stored.files import PackedFolder, plainly_written
from engine.work.stored.weights import Stored
from engine.work.tasks import Measured, calibration_batches, evaluate, measured_once

Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Bench:
    """What every stage of one run needs to know."""

    recipe: Recipe
    folder: Folder
    report: Report = lambda stage, done, total: None
    cancelled: Callable[[], bool] = lambda: False

    def progress(self, stage: str, done: int, total: int) -> None:
        """Report, and stop here if a person asked to."""
        self.report(stage, done, total)
        if self.cancelled():
            raise Cancelled("The run was cancelled before it finished; nothing was kept. Run it again when you like.")

    def measured(self, model: nn.Module, folder: Folder, stage: str) -> Measured:
        device, _ = compute_place(self.recipe)

        def told(inner: str, done: int, total: int) -> None:
            self.report(stage if inner.startswith("Measuring") else inner, done, total)

        return evaluate(self.recipe.task, model, folder, device, told, self.cancelled)


@dataclass
class Rows:
    """Table rows as they come in, layer by layer."""

    layers: list = field(default_factory=list)
    channels: list = field(default_factory=list)  # a table a layer
    histograms: list = field(default_factory=list)
    levels: list = field(default_factory=list)
    ledger: list = field(default_factory=list)
    samples: list = field(default_factory=list)

    def tables(self) -> Tables:
        tables = {name: table(getattr(self, name), row) for name, row in ROWS.items() if name != "channels"}
        channels = pd.concat(self.channels, ignore_index=True) if self.channels else table((), ChannelRow)
        return Tables(**tables, channels=channels)


def run(recipe: Recipe, run_id: str = "", save: Path | None = None, report: Report = Bench.report, cancelled=Bench.cancelled) -> Outcome:
    """Raises PlainError for everything a person can mend, Cancelled when asked to stop."""
    began = time.perf_counter()
    reset_peak()
    torch.manual_seed(recipe.seed)
    bench = Bench(recipe, resolve(recipe.model, lambda text: report(text, 0, 0)), report, cancelled)
    check(bench, save)
    original = opened(bench.folder, *compute_place(recipe))
    targets = chosen(original.layers, recipe.layers) if recipe.steps else []
    with working_folder(save) as out:
        baseline = measured_once(recipe, bench.folder, lambda: bench.measured(original.model, bench.folder, "Measuring the original"))
        rows, packed, seconds = compressed_folder(bench, original, targets, out)
        result, size = measured_result(bench, original, packed, baseline, rows)
    before = baseline_scores(bench.folder, original, targets, baseline)
    agreement = float(np.mean(result.guesses == baseline.guesses))
    summary = Summary(
        run=run_id,
        model=recipe.model,
        revision=bench.folder.revision,
        architecture=bench.folder.architecture,
        device=str(original.device),
        protocol=result.protocol,
        baseline=before,
        result=result_scores(before, rows.layers, size, result, agreement),
        notes=bench.folder.notes,
        seconds=time.perf_counter() - began,
        compress_seconds=seconds,
        peak_rss_bytes=peak_rss_bytes(),
    )
    return Outcome(summary, rows.tables())


def check(bench: Bench, save: Path | None) -> None:
    """Refuse before anything heavy is done."""
    if bench.folder.kind != bench.recipe.task.kind:
        raise PlainError(
            f"{bench.recipe.model} is a {bench.folder.kind} model ({bench.folder.architecture}), but the task is {bench.recipe.task.kind}; "
            f"set task.kind to {bench.folder.kind}."
        )
    if bench.folder.packed and bench.recipe.steps:
        raise PlainError(f"{bench.recipe.model} is already compressed; start from the original model, or leave out the steps to measure it.")
    if save and not bench.recipe.steps:
        raise PlainError("The recipe has no steps, so there is nothing to save; add a step, or leave --save out.")
    check_finite(bench.folder)


@contextmanager
def working_folder(save: Path | None) -> Iterator[Path]:
    """Where the compressed model is written: kept when asked for, else gone afterwards."""
    if save:
        with claimed(save):
            yield save
    else:
        with tempfile.TemporaryDirectory(prefix="compression-explorer-", ignore_cleanup_errors=True) as folder:
            yield Path(folder)


@contextmanager
def claimed(save: Path) -> Iterator[None]:
    """A new or empty folder to write to; left as it was found when the run does not finish. Raises PlainError for any other."""
    with plainly_written(save):
        new = not save.exists()
        save.mkdir(parents=True, exist_ok=True)
        empty = not any(save.iterdir())
    if not empty:
        raise PlainError(f"The folder {str(save)!r} is not empty; give an empty or a new one to save into.")
    try:
        yield
    except BaseException:
        for path in [*save.iterdir(), *([save] if new else [])]:
            disk.remove(path)
        raise


def compressed_folder(bench: Bench, original: Opened, targets: list[Layer], out: Path) -> tuple[Rows, PackedFolder | None, float]:
    """Compress and write block by block; without steps nothing is written."""
    rows, began = Rows(), time.perf_counter()
    if not bench.recipe.steps:
        rows.layers.extend(kept_row(layer, original.held_bytes(layer)) for layer in original.layers)
        return rows, None, 0.0
    inputs = surveyed(bench, original)
    packed = PackedFolder(out, bench.folder, bench.recipe.model_dump(mode="json"))
    settings = plan(bench.recipe.steps[0], targets)
    began = time.perf_counter()
    for block in blocks_of(original.layers):
        packed.add({layer.name: kept_or_compressed(bench, original, layer, settings, inputs, rows) for layer in block})
    packed.add({}, original.plain)
    packed.finish()
    sizes = {row.name: row.size_bytes for row in rows.layers}
    rows.layers.extend(kept_row(layer, sizes[layer.tied_to]) for layer in original.layers if layer.tied_to)
    rows.ledger.extend(packed.ledger_rows())
    return rows, packed, time.perf_counter() - began


def surveyed(bench: Bench, original: Opened) -> dict[str, torch.Tensor]:
    """A sample of each layer's inputs on calibration data, empty where the recipe has none."""
    if bench.recipe.calibration is None:
        return {}
    device, _ = compute_place(bench.recipe)
    batches = calibration_batches(bench.recipe.calibration, bench.recipe.task, bench.folder)
    done = iter(range(1, len(batches) + 1))
    return sampled_inputs(original.model, batches, device, lambda: bench.progress("Reading calibration data", next(done), len(batches)))


def kept_or_compressed(
    bench: Bench, original: Opened, layer: Layer, settings: dict[str, Technique], inputs: dict[str, torch.Tensor], rows: Rows
) -> Stored:
    """One layer as it will be stored, and what it lost, noted in ``rows``."""
    give_back()
    bench.progress("Compressing", len(rows.layers), len(original.layers))
    held = original.model.get_submodule(layer.name).stored
    if layer.name not in settings:
        rows.layers.append(kept_row(layer, held.nbytes))
        return held
    weight = held.dense(torch.float32)
    stored = compress(settings[layer.name], weight)
    judge(Judged(layer, weight, stored.dense()), stored, settings[layer.name], inputs.get(layer.name), rows)
    return stored.to("cpu")


def judge(judged: Judged, stored: Stored, how: Technique, inputs: torch.Tensor | None, rows: Rows) -> None:
    """Note what the layer lost. Raises PlainError when it became NaN, or lost nothing at all although it is not zero."""
    row = judged.row(stored, how.technique, None if inputs is None else inputs.to(judged.original.device))
    if not row.relative_error < float("inf"):
        raise PlainError(f"{row.name} became NaN while it was compressed; please report this recipe.")
    if row.relative_error == 0 and judged.original.any():
        raise PlainError(f"{row.name} came out exactly as it was, so it was compressed before; skip it under layers.skip, or use the original model.")
    rows.layers.append(row)
    rows.channels.append(judged.channels())
    rows.histograms.extend(judged.histogram())
    rows.levels.extend(level_rows(row.name, stored))


def measured_result(bench: Bench, original: Opened, packed: PackedFolder | None, baseline: Measured, rows: Rows) -> tuple[Measured, int]:
    """Quality and bytes of the model as written: it is loaded from its files again."""
    if packed is None:
        return baseline, bench.folder.size_bytes
    folder = resolve(str(packed.folder))
    reopened = opened(folder, *compute_place(bench.recipe))
    measured = bench.measured(reopened.model, folder, "Measuring the result")
    bench.progress("Writing examples", 0, 1)
    rows.samples.extend(sample_rows(bench.recipe.task, bench.folder, original.model, reopened.model))
    return measured, packed.size_bytes
