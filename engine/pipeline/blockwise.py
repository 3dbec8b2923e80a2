"""Block by block through a model: look at calibration data, scale, compress, write, go on."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from engine.calibration import Seen
from engine.calibration.gradient_stats import Slopes
from engine.config.technique import Technique
from engine.errors import PlainError
from engine.evaluation.calibration_batches import Batch
from engine.events import ProgressEvent
from engine.measurement.error import kept_row
from engine.measurement.size import by_original_parameters, origin_of_compressed
from engine.measurement.surface import most_striking
from engine.models.layers import Layer, blocks_of, why_kept
from engine.models.loaded_model import Opened, compute_place
from engine.models.packed_folder import PackedFolder, read_file
from engine.pipeline.layer_report import RESCALED, REWRITTEN, LayerReport, why_not_seen
from engine.pipeline.pruned_writer import Rewriting
from engine.pipeline.replacement_writer import Succession
from engine.pipeline.resume import Finished, Unfinished
from engine.pipeline.statistics_pass import (
    StatisticsPass,
    batches_of,
    slopes_for,
    stream_of,
    surveyed,
)
from engine.runtime.platform_support import free_unused_memory
from engine.step.layer_swap import Trial
from engine.step.pruning_plan import Subject, nowhere
from engine.step.run_context import Bench
from engine.step.table_builder import TableBuilder
from engine.step.trained_weights import Trained
from engine.techniques.composed import compress_further
from engine.techniques.implementations import (
    equivalent_weights,
    plan,
    rebuild,
    retrained,
    taught,
)
from engine.tensors.weights import Stored


@dataclass(frozen=True)
class StepResult:
    rows: TableBuilder
    packed: PackedFolder
    seconds: float
    # False if layers that kept their shapes have other, equivalent weights
    comparable: bool = True


def compressed_folder(
    bench: Bench,
    original: Opened,
    targets: list[Layer],
    out: Path,
    kept: Unfinished | None = None,
    reference: Opened | None = None,
) -> StepResult:
    """One step: compress and write block by block, on from what was ``kept``. What is lost is
    counted from ``reference``, or from the original.
    """
    rows, began = TableBuilder(), time.perf_counter()
    keeps = partial(kept.place, bench) if kept else nowhere
    if heir := taught(bench.how, bench, subject_of(bench, original, targets, keeps), rows):
        packed = Succession(bench, original, heir, rows).write(out)
        rows.layers = by_original_parameters(rows.layers, original)
        return StepResult(rows, packed, time.perf_counter() - began)
    rewritten = equivalent_weights(bench.how, subject_of(bench, original, targets, keeps))
    if rewritten:
        _, compute = compute_place(bench.recipe)
        original = reference = rewritten.applied(original, bench.folder, compute)
    batches = batches_of(bench, targets)
    inputs = surveyed(bench, reference or original, batches)
    packed = PackedFolder(out, bench.folder, bench.recipe.model_dump(mode="json"))
    began = time.perf_counter()
    trial = Trial(bench, original, batches, rows)
    subject = subject_of(bench, original, targets, keeps, trial)
    if small := rebuild(bench.how, subject):
        Rewriting(bench, original, small, inputs, rows).write(packed)
        rows.layers = by_original_parameters(rows.layers, original)
        return StepResult(rows, packed, time.perf_counter() - began, rewritten is None)
    settings = plan(bench.how, targets, trial)
    slopes = slopes_for(bench.how, trial, settings)
    trained = retrained(bench.how, bench, subject)
    report = LayerReport(original, reference or original, settings, bench.recipe.layers, inputs)
    changed = frozenset(rewritten.layers if rewritten else ())
    walk = Walk(bench, original, settings, report, rows, batches, slopes, trained, changed)
    # else to begin again costs little, and what is kept are an earlier step's blocks
    if kept and walk.statistics:
        kept.begin(bench, batches)
        walk.kept = kept
    for number, block in enumerate(blocks_of(original.layers)):
        walk.map_to(packed.add(walk.done(number, block)))
    report.refuse_unchanged()
    bench.notes.extend(report.notes_on_layers(rows))
    packed.add({}, walk.plain)
    packed.finish(
        origin_of_compressed(original, {row.name for row in rows.layers if row.technique})
    )
    sizes = {row.name: row.size_bytes for row in rows.layers}
    rows.layers.extend(
        kept_row(layer, sizes[layer.tied_to]) for layer in original.layers if layer.tied_to
    )
    rows.layers = by_original_parameters(rows.layers, original)
    rows.ledger.extend(packed.ledger_rows())
    return StepResult(rows, packed, time.perf_counter() - began, rewritten is None)


def subject_of(
    bench: Bench,
    original: Opened,
    targets: list[Layer],
    keeps: Callable[[], Path | None],
    trial: Trial | None = None,
) -> Subject:
    return Subject(original, bench.folder, frozenset(layer.name for layer in targets), trial, keeps)


@dataclass
class Walk:
    """State of the block-wise compression."""

    bench: Bench
    original: Opened  # what is compressed
    settings: dict[str, Technique]
    report: LayerReport
    rows: TableBuilder  # of all blocks so far
    batches: list[Batch]
    # of the loss, by each layer's weights, where the technique wants them
    slopes: dict[str, Slopes] = field(default_factory=dict)
    trained: Trained | None = None  # what training has left, where the technique trains
    # layers whose weights the technique replaced by equivalent ones
    rewritten: frozenset[str] = frozenset()
    # finished blocks, where they cost so much that a run may want to go on from them
    kept: Unfinished = field(default_factory=Unfinished)
    plain: dict[str, torch.Tensor] = field(init=False)  # norms and biases as they will be written
    # of the layers' inputs, where the technique wants them
    statistics: StatisticsPass | None = None
    stage: Literal["compressing", "resuming"] = "compressing"

    def __post_init__(self) -> None:
        self.plain = self.original.plain | (self.trained.plain if self.trained else {})
        self.how = self.bench.how
        if self.how.needs in ("range", "gram"):
            stream = stream_of(self.bench, self.original, self.batches, self.progress)
            self.statistics = StatisticsPass(
                self.how, self.original, stream, self.report, self.plain, self.progress
            )

    @property
    def place(self) -> ProgressEvent:
        done = len(self.rows.layers) + len(self.report.found.layers)
        return ProgressEvent(self.stage, done, len(self.original.layers))

    def progress(self) -> None:
        self.bench.progress(self.place)

    @torch.no_grad()
    def done(self, number: int, layers: list[Layer]) -> dict[str, Stored]:
        """Every layer of a block as it will be stored: kept from a run that came so far, or
        compressed now and kept.
        """
        done = self.kept.block(number)
        if done and set(done.layers) == {layer.name for layer in layers}:
            self.stage = "resuming"
            self.statistics.install(done)
            self.kept.taken_up += 1
        else:
            self.stage, self.report.found = "compressing", TableBuilder()
            changed = self.statistics.begin_block() if self.statistics else {}
            done = Finished(self.block(layers), changed, self.report.found)
            # what was only copied is copied again
            if any(layer.name in self.settings for layer in layers):
                self.kept.keep(number, done)
        if self.statistics:
            self.statistics.stream.go_on(layers[0].block)
        self.rows.add(done.rows)
        # after each block: those of thousands of experts would take gigabytes
        self.rows.surfaces = most_striking(self.rows.surfaces)
        self.report.found = TableBuilder()
        return done.layers

    def map_to(self, path: Path) -> None:
        """The model that is walked reads the layers of a block from the file they were written to,
        and no longer from memory.
        """
        if self.statistics and self.statistics.stream.device.type == "cpu":
            layers, _ = read_file(path)
            for name in layers.keys() & self.settings.keys():
                self.statistics.module(name).stored = layers[name]

    def block(self, layers: list[Layer]) -> dict[str, Stored]:
        """Every layer of a block as it will be stored; the report notes what each lost."""
        block, statistics = layers[0].block, self.statistics
        names = [layer.name for layer in layers if layer.name in self.settings]
        if statistics and self.how.in_step and statistics.stream.goes_in_step(block, names):
            return self.in_step(layers, names)
        seen = statistics.seen(block, names) if statistics and names else self.slopes
        if statistics and (self.how.folds or self.how.needs == "range"):
            self.report.found.surfaces.extend(statistics.surfaces(seen))
        return {layer.name: self.layer(layer, seen.get(layer.name)) for layer in layers}

    def in_step(self, layers: list[Layer], names: list[str]) -> dict[str, Stored]:
        """Compress the layers of a block one after the other, each with inputs from the compressed
        layers before it.
        """
        done, by_name = {}, {layer.name: layer for layer in layers}
        stream = self.statistics.stream

        def change(name: str, seen: Seen) -> None:
            done[name] = self.layer(by_name[name], seen)
            module = self.statistics.module(name)
            module.unpacked = None
            module.unpacked = module.weight

        unreached = stream.in_step(layers[0].block, names, self.how.needs == "gram", change)
        return {
            layer.name: done.get(layer.name) or self.layer(layer, unreached.get(layer.name))
            for layer in layers
        }

    def layer(self, layer: Layer, seen: Seen | Slopes | None) -> Stored:
        """One layer as it will be stored."""
        free_unused_memory()
        self.progress()
        module = self.original.model.get_submodule(layer.name)
        if layer.name not in self.settings:
            return self.left(layer, module.stored)
        if self.trained:
            stored = self.trained.layers[layer.name]
            self.report.judge(layer, module.stored, stored.to(self.original.device), seen)
            return stored
        setting = self.settings[layer.name]
        if seen is None and setting.needs != "nothing":
            self.report.keep(layer, module.stored, why_not_seen(setting, module))
            return module.stored
        read = self.statistics.module(layer.name) if self.statistics else module
        weight = read.stored.dense(torch.float32)
        try:
            stored = compress_further(setting, module.stored, weight, seen, self.bench.keeps_zeros)
        except PlainError as error:
            raise PlainError(f"{layer.name}: {error}") from None
        if self.statistics:
            read.stored = stored
        self.report.judge(layer, module.stored, stored, seen)
        return stored.to("cpu")

    def left(self, layer: Layer, held: Stored) -> Stored:
        """A layer that the step does not compress."""
        routers = self.report.scales.routers
        why = [
            why_kept(layer, self.original.tied, self.bench.recipe.layers),
            RESCALED if layer.name in routers else "",
            REWRITTEN if layer.name in self.rewritten else "",
        ]
        stored = routers.get(layer.name, held).to("cpu")
        self.report.keep(layer, stored, "; ".join(filter(None, why)))
        return stored
