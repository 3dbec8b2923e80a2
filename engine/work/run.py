"""Recipe in, result out: measure the original, compress block by block, measure what was written."""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from torch import nn

from engine.catalog.technique import Technique
from engine.errors import Cancelled, PlainError
from engine.recipe import Recipe
from engine.results.outcome import Outcome
from engine.results.record import Summary
from engine.results.tables import ROWS, Tables, table
from engine.work.layers import Layer, chosen
from engine.work.measure.error import Judged, kept_row, level_rows
from engine.work.measure.inputs import sampled_inputs
from engine.work.measure.memory import peak_rss_bytes, reset_peak
from engine.work.methods import compress, plan
from engine.work.models import Folder, resolve
from engine.work.opened import Opened, compute_place, opened
from engine.work.samples import sample_rows
from engine.work.scores import baseline_scores, result_scores
from engine.work.stored.files import PackedFolder
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
        return evaluate(self.recipe.task, model, folder, device, lambda _, done, total: self.report(stage, done, total), self.cancelled)


@dataclass
class Rows:
    """Table rows as they come in, layer by layer."""

    layers: list = field(default_factory=list)
    channels: list = field(default_factory=list)
    histograms: list = field(default_factory=list)
    levels: list = field(default_factory=list)
    ledger: list = field(default_factory=list)
    samples: list = field(default_factory=list)

    def tables(self) -> Tables:
        return Tables(**{name: table(getattr(self, name), row) for name, row in ROWS.items()})


def run(recipe: Recipe, run_id: str = "", save: Path | None = None, report: Report = Bench.report, cancelled=Bench.cancelled) -> Outcome:
    """Raises PlainError for everything a person can mend, Cancelled when asked to stop."""
    began = time.perf_counter()
    reset_peak()
    torch.manual_seed(recipe.seed)
    bench = Bench(recipe, resolve(recipe.model, lambda text: report(text, 0, 0)), report, cancelled)
    check(bench)
    original = opened(bench.folder, *compute_place(recipe))
    targets = chosen(original.layers, recipe.layers) if recipe.steps else []
    baseline = measured_once(recipe, bench.folder, lambda: bench.measured(original.model, bench.folder, "Measuring the original"))
    with working_folder(save) as out:
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


def check(bench: Bench) -> None:
    """Refuse before anything heavy is done."""
    if bench.folder.kind != bench.recipe.task.kind:
        raise PlainError(
            f"{bench.recipe.model} is a {bench.folder.kind} model ({bench.folder.architecture}), but the task is {bench.recipe.task.kind}; "
            f"set task.kind to {bench.folder.kind}."
        )
    if bench.folder.packed and bench.recipe.steps:
        raise PlainError(f"{bench.recipe.model} is already compressed; start from the original model, or leave out the steps to measure it.")


@contextmanager
def working_folder(save: Path | None) -> Iterator[Path]:
    """Where the compressed model is written: kept when asked for, else gone afterwards."""
    if save:
        yield save
        return
    folder = Path(tempfile.mkdtemp(prefix="compression-explorer-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def compressed_folder(bench: Bench, original: Opened, targets: list[Layer], out: Path) -> tuple[Rows, PackedFolder | None, float]:
    """Compress and write block by block; without steps nothing is written."""
    rows, began = Rows(), time.perf_counter()
    if not bench.recipe.steps:
        rows.layers.extend(kept_row(layer) for layer in original.layers)
        return rows, None, 0.0
    inputs = surveyed(bench, original)
    packed = PackedFolder(out, bench.folder.path, bench.recipe.model_dump(mode="json"))
    settings = plan(bench.recipe.steps[0], targets)
    began = time.perf_counter()
    for _, block in groupby(original.layers, key=lambda layer: layer.block):
        stored = {layer.name: kept_or_compressed(bench, original, layer, settings, inputs, rows) for layer in block if not layer.tied_to}
        packed.add(stored)
    packed.add({}, original.plain)
    packed.finish()
    rows.layers.extend(kept_row(layer) for layer in original.layers if layer.tied_to)
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
    names = [each.name for each in original.layers]
    bench.progress("Compressing", names.index(layer.name), len(names))
    held = original.model.get_submodule(layer.name).stored
    if layer.name not in settings:
        rows.layers.append(kept_row(layer))
        return held
    weight = held.dense(torch.float32)
    if not weight.isfinite().all():
        raise PlainError(
            f"{layer.name} holds NaN or infinite weights, so nothing measured on this model would mean anything; use an intact copy of it."
        )
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
    rows.channels.extend(judged.channels())
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
