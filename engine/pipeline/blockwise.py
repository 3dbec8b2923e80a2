"""Block-wise compression: for each block collect statistics, scale, compress and write."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from engine.calibration import InputStats
from engine.calibration.gradient_stats import GradientStats
from engine.config.technique import Technique
from engine.errors import PlainError
from engine.evaluation.calibration_batches import Batch
from engine.events import ProgressEvent
from engine.measurement.error import unchanged_row
from engine.measurement.size import by_original_parameters, origin_of_compressed
from engine.measurement.surface import most_prominent
from engine.models.layers import Layer, blocks_of, skip_reason
from engine.models.loaded_model import LoadedModel, device_and_dtype
from engine.models.packed_folder import PackedFolder, read_file
from engine.pipeline.layer_report import RESCALED, REWRITTEN, LayerReport, why_not_seen
from engine.pipeline.pruned_writer import PrunedWriter
from engine.pipeline.replacement_writer import ReplacementWriter
from engine.pipeline.resume import FinishedBlock, ResumeStore
from engine.pipeline.statistics_pass import (
    StatisticsPass,
    gradient_stats_for,
    input_samples,
    load_calibration_batches,
    stream_of,
)
from engine.runtime.platform_support import free_unused_memory
from engine.step.equivalent_weights import EquivalentWeights
from engine.step.layer_swap import LayerSwap
from engine.step.pruning_plan import TechniqueInput, no_checkpoint_folder
from engine.step.run_context import RunContext
from engine.step.table_builder import TableBuilder
from engine.step.trained_weights import TrainedWeights
from engine.techniques.composed import compress_further
from engine.techniques.implementations import (
    equivalent_weights,
    plan,
    plan_removal,
    train_replacement,
    train_weights,
)
from engine.tensors.weights import StoredWeight


@dataclass(frozen=True)
class StepResult:
    rows: TableBuilder
    packed: PackedFolder
    seconds: float
    # False if layers that kept their shapes have other, equivalent weights
    comparable: bool = True


def run_step(
    context: RunContext,
    original: LoadedModel,
    targets: list[Layer],
    out: Path,
    resume_store: ResumeStore | None = None,
    reference: LoadedModel | None = None,
) -> StepResult:
    """Compress the targets and write the step's files. Blocks in ``resume_store`` are read instead
    of computed. Errors are relative to ``reference``, by default to the original.
    """
    tables, start = TableBuilder(), time.perf_counter()
    open_checkpoint_folder = (
        partial(resume_store.claim_step_folder, context) if resume_store else no_checkpoint_folder
    )
    technique_input = make_technique_input(context, original, targets, open_checkpoint_folder)
    if replacement := train_replacement(context.config, context, technique_input, tables):
        packed = ReplacementWriter(context, original, replacement, tables).write(out)
        tables.layers = by_original_parameters(tables.layers, original)
        return StepResult(tables, packed, time.perf_counter() - start)
    rewritten = equivalent_weights(context.config, technique_input)
    if rewritten:
        _, dtype = device_and_dtype(context.recipe)
        original = reference = rewritten.apply(original, context.folder, dtype)
    batches = load_calibration_batches(context, targets)
    inputs = input_samples(context, reference or original, batches)
    packed = PackedFolder(out, context.folder, context.recipe.model_dump(mode="json"))
    start = time.perf_counter()
    layer_swap = LayerSwap(context, original, batches, tables)
    technique_input = make_technique_input(
        context, original, targets, open_checkpoint_folder, layer_swap
    )
    if pruning_plan := plan_removal(context.config, technique_input):
        PrunedWriter(context, original, pruning_plan, inputs, tables).write(packed)
    else:
        compressor = blockwise_compressor(
            context, technique_input, targets, reference or original, inputs, rewritten
        )
        compressor.write(packed, resume_store)
    tables.layers = by_original_parameters(tables.layers, original)
    return StepResult(tables, packed, time.perf_counter() - start, rewritten is None)


def blockwise_compressor(
    context: RunContext,
    technique_input: TechniqueInput,
    targets: list[Layer],
    reference: LoadedModel,
    inputs: dict[str, torch.Tensor],
    rewritten: EquivalentWeights | None,
) -> "BlockwiseCompressor":
    """Plan the step and train where the technique trains, before the first block is compressed."""
    original, layer_swap = technique_input.original, technique_input.layer_swap
    settings = plan(context.config, targets, layer_swap)
    gradient_stats = gradient_stats_for(context.config, layer_swap, settings)
    trained_weights = train_weights(context.config, context, technique_input)
    report = LayerReport(original, reference, settings, context.recipe.layers, inputs)
    return BlockwiseCompressor(
        context,
        original,
        settings,
        report,
        layer_swap.tables,
        layer_swap.batches,
        gradient_stats,
        trained_weights,
        frozenset(rewritten.layers if rewritten else ()),
    )


def make_technique_input(
    context: RunContext,
    original: LoadedModel,
    targets: list[Layer],
    open_checkpoint_folder: Callable[[], Path | None],
    layer_swap: LayerSwap | None = None,
) -> TechniqueInput:
    return TechniqueInput(
        original,
        context.folder,
        frozenset(layer.name for layer in targets),
        layer_swap,
        open_checkpoint_folder,
    )


@dataclass
class BlockwiseCompressor:
    """Block-wise compression of one model."""

    context: RunContext
    original: LoadedModel  # the model to compress
    settings: dict[str, Technique]
    report: LayerReport
    tables: TableBuilder  # rows of all blocks so far
    batches: list[Batch]
    # by layer; empty unless the technique uses gradients
    gradient_stats: dict[str, GradientStats] = field(default_factory=dict)
    trained_weights: TrainedWeights | None = None  # result of training, if the technique trains
    # layers whose weights were replaced by equivalent ones
    rewritten: frozenset[str] = frozenset()
    # finished blocks, stored if they take long enough to compress
    resume_store: ResumeStore = field(default_factory=ResumeStore)
    plain: dict[str, torch.Tensor] = field(init=False)  # norms and biases in their final state
    # None if the technique uses no statistics of the layers' inputs
    statistics: StatisticsPass | None = None
    stage: Literal["compressing", "resuming"] = "compressing"

    def __post_init__(self) -> None:
        self.plain = self.original.plain | (
            self.trained_weights.plain if self.trained_weights else {}
        )
        self.config = self.context.config
        if self.config.needs in ("range", "gram"):
            stream = stream_of(self.context, self.original, self.batches, self.progress)
            self.statistics = StatisticsPass(
                self.config, self.original, stream, self.report, self.plain, self.progress
            )

    @property
    def progress_position(self) -> ProgressEvent:
        done = len(self.tables.layers) + len(self.report.found.layers)
        return ProgressEvent(self.stage, done, len(self.original.layers))

    def progress(self) -> None:
        self.context.progress(self.progress_position)

    def write(self, packed: PackedFolder, resume_store: ResumeStore | None) -> None:
        """Compress all blocks and write them, with the tensors outside of layers."""
        # without statistics a block is cheap to compress again, and its layers may be trained
        if resume_store and self.statistics:
            resume_store.open_step(self.context, self.batches)
            self.resume_store = resume_store
        for number, block in enumerate(blocks_of(self.original.layers)):
            self.memory_map_block(packed.add(self.finish_block(number, block)))
        self.report.refuse_unchanged()
        self.context.notes.extend(self.report.notes_on_layers(self.tables))
        packed.add({}, self.plain)
        packed.finish(
            origin_of_compressed(
                self.original, {row.name for row in self.tables.layers if row.technique}
            )
        )
        sizes = {row.name: row.size_bytes for row in self.tables.layers}
        self.tables.layers.extend(
            unchanged_row(layer, sizes[layer.tied_to])
            for layer in self.original.layers
            if layer.tied_to
        )
        self.tables.ledger.extend(packed.ledger_rows())

    @torch.no_grad()
    def finish_block(self, number: int, layers: list[Layer]) -> dict[str, StoredWeight]:
        """Stored weights of a block's layers: loaded from an earlier run, or compressed now and
        stored for a later one.
        """
        done = self.resume_store.load_block(number)
        if done and set(done.layers) == {layer.name for layer in layers}:
            self.stage = "resuming"
            self.statistics.install(done)
            self.resume_store.resumed_blocks += 1
        else:
            self.stage, self.report.found = "compressing", TableBuilder()
            changed = self.statistics.begin_block() if self.statistics else {}
            done = FinishedBlock(self.compress_block(layers), changed, self.report.found)
            # a block that is only copied is not stored
            if any(layer.name in self.settings for layer in layers):
                self.resume_store.save_block(number, done)
        if self.statistics:
            self.statistics.stream.advance(layers[0].block)
        self.tables.add(done.tables)
        # after each block, because surfaces of thousands of experts would take gigabytes
        self.tables.surfaces = most_prominent(self.tables.surfaces)
        self.report.found = TableBuilder()
        return done.layers

    def memory_map_block(self, path: Path) -> None:
        """Let the calibrated model read the layers of a block from their file instead of memory."""
        if self.statistics and self.statistics.stream.device.type == "cpu":
            layers, _ = read_file(path)
            for name in layers.keys() & self.settings.keys():
                self.statistics.module(name).stored = layers[name]

    def compress_block(self, layers: list[Layer]) -> dict[str, StoredWeight]:
        """Stored weights of a block's layers; the report records their errors."""
        block, statistics = layers[0].block, self.statistics
        names = [layer.name for layer in layers if layer.name in self.settings]
        if statistics and self.config.sequential and statistics.stream.in_step_fits(block, names):
            return self.compress_sequentially(layers, names)
        stats = (
            statistics.input_stats(block, names) if statistics and names else self.gradient_stats
        )
        if statistics and (self.config.rescales_inputs or self.config.needs == "range"):
            self.report.found.surfaces.extend(statistics.surfaces(stats))
        return {layer.name: self.compress_layer(layer, stats.get(layer.name)) for layer in layers}

    def compress_sequentially(
        self, layers: list[Layer], names: list[str]
    ) -> dict[str, StoredWeight]:
        """Compress the layers of a block one after the other, each with inputs from the compressed
        layers before it.
        """
        done, by_name = {}, {layer.name: layer for layer in layers}
        stream = self.statistics.stream

        def compress_in_place(name: str, stats: InputStats) -> None:
            done[name] = self.compress_layer(by_name[name], stats)
            module = self.statistics.module(name)
            module.unpacked = None
            module.unpacked = module.weight

        unreached = stream.run_in_step(
            layers[0].block, names, self.config.needs == "gram", compress_in_place
        )
        return {
            layer.name: done.get(layer.name)
            or self.compress_layer(layer, unreached.get(layer.name))
            for layer in layers
        }

    def compress_layer(
        self, layer: Layer, stats: InputStats | GradientStats | None
    ) -> StoredWeight:
        """Stored weight of one layer."""
        free_unused_memory()
        self.progress()
        module = self.original.model.get_submodule(layer.name)
        if layer.name not in self.settings:
            return self.uncompressed_layer(layer, module.stored)
        if self.trained_weights:
            stored = self.trained_weights.layers[layer.name]
            self.report.judge(layer, module.stored, stored.to(self.original.device), stats)
            return stored
        setting = self.settings[layer.name]
        if stats is None and setting.needs != "nothing":
            self.report.keep(layer, module.stored, why_not_seen(setting, module))
            return module.stored
        read = self.statistics.module(layer.name) if self.statistics else module
        weight = read.stored.to_dense(torch.float32)
        try:
            stored = compress_further(
                setting, module.stored, weight, stats, self.context.keeps_zeros
            )
        except PlainError as error:
            raise PlainError(f"{layer.name}: {error}") from None
        if self.statistics:
            read.stored = stored
        self.report.judge(layer, module.stored, stored, stats)
        return stored.to("cpu")

    def uncompressed_layer(self, layer: Layer, current: StoredWeight) -> StoredWeight:
        """Stored weight of a layer that the step does not compress."""
        routers = self.report.scales.routers
        reasons = [
            skip_reason(layer, self.original.tied_layers, self.context.recipe.layers),
            RESCALED if layer.name in routers else "",
            REWRITTEN if layer.name in self.rewritten else "",
        ]
        stored = routers.get(layer.name, current).to("cpu")
        self.report.keep(layer, stored, "; ".join(filter(None, reasons)))
        return stored
