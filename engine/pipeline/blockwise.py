"""Block by block through a model: look at calibration data, scale, compress, write, go on."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import nn

from engine.calibration import Fold, Seen, Stream, folds_in
from engine.calibration.activation_stats import pooled, seeable
from engine.calibration.gradient_stats import Slopes
from engine.config.technique import Technique
from engine.errors import PlainError
from engine.evaluation import calibration_data
from engine.evaluation.calibration_batches import Batch
from engine.events import ProgressEvent
from engine.measurement.error import Judged, kept_row, level_rows
from engine.measurement.inputs import sampled_inputs, thinned
from engine.measurement.size import by_original_parameters, origin_of_compressed
from engine.measurement.surface import most_striking, surface
from engine.models.layers import Layer, blocks_of, included_embeddings, why_kept
from engine.models.loaded_model import Opened, calibration_dtype, compute_place, sharing
from engine.models.packed_folder import PackedFolder, read_file
from engine.pipeline.preflight import refuse_noise
from engine.pipeline.pruned_writer import Rewriting
from engine.pipeline.replacement_writer import Succession
from engine.pipeline.resume import Finished, Unfinished
from engine.results.schema.tables import SearchRow
from engine.runtime.platform_support import free_unused_memory
from engine.step.layer_swap import Trial
from engine.step.pruning_plan import Subject, nowhere
from engine.step.run_context import Bench, Rows
from engine.step.trained_weights import Trained
from engine.techniques.implementations import plan, portrait, rebuild, retrained, scales_for, taught
from engine.techniques.pruning.options import Pruning
from engine.techniques.pruning.unstructured.method import left_of
from engine.techniques.training.composed import compress_further
from engine.tensors.weights import Dense, Stored


def compressed_folder(
    bench: Bench,
    original: Opened,
    targets: list[Layer],
    out: Path,
    kept: Unfinished | None = None,
    reference: Opened | None = None,
) -> tuple[Rows, PackedFolder, float]:
    """One step: compress and write block by block, on from what was ``kept``. What is lost is
    counted from ``reference``, or from the original.
    """
    rows, began = Rows(), time.perf_counter()
    keeps = partial(kept.place, bench) if kept else nowhere
    if heir := taught(bench.how, bench, subject_of(bench, original, targets, keeps), rows):
        packed = Succession(bench, original, heir, rows).write(out)
        rows.layers = by_original_parameters(rows.layers, original)
        return rows, packed, time.perf_counter() - began
    batches = batches_of(bench, targets)
    inputs = surveyed(bench, reference or original, batches)
    packed = PackedFolder(out, bench.folder, bench.recipe.model_dump(mode="json"))
    began = time.perf_counter()
    trial = Trial(bench, original, batches, rows)
    subject = subject_of(bench, original, targets, keeps, trial)
    if small := rebuild(bench.how, subject):
        Rewriting(bench, original, small, inputs, rows).write(packed)
        rows.layers = by_original_parameters(rows.layers, original)
        return rows, packed, time.perf_counter() - began
    settings = plan(bench.how, targets, trial)
    slopes = slopes_for(bench.how, trial, settings)
    trained = retrained(bench.how, bench, subject)
    walk = Walk(
        bench,
        original,
        reference or original,
        settings,
        inputs,
        rows,
        batches,
        Unfinished(),
        slopes,
        trained,
    )
    # else to begin again costs little, and what is kept are an earlier step's blocks
    if kept and walk.stream:
        kept.begin(bench, batches)
        walk.kept = kept
    for number, block in enumerate(blocks_of(original.layers)):
        walk.map_to(packed.add(walk.done(number, block)))
    walk.refuse_unchanged()
    bench.notes.extend(walk.notes_on_layers())
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
    return rows, packed, time.perf_counter() - began


def subject_of(
    bench: Bench,
    original: Opened,
    targets: list[Layer],
    keeps: Callable[[], Path | None],
    trial: Trial | None = None,
) -> Subject:
    return Subject(original, bench.folder, frozenset(layer.name for layer in targets), trial, keeps)


def slopes_for(how: Technique, trial: Trial, settings: dict[str, Technique]) -> dict[str, Slopes]:
    return trial.slopes(tuple(settings)) if how.needs == "gradients" else {}


def batches_of(bench: Bench, targets: Sequence[Layer] = ()) -> list[Batch]:
    """Calibration batches of the recipe; shortfalls are noted once for all steps.

    Raises PlainError for too little data.
    """
    if not bench.recipe.calibration:
        return []
    data = calibration_data(bench.recipe.calibration, bench.recipe.task, bench.folder)
    bench.notes.extend(note for note in data.notes if note not in bench.notes)
    refuse_noise(bench.how, targets, data.tokens)
    return data.batches


def surveyed(bench: Bench, original: Opened, batches: list[Batch]) -> dict[str, torch.Tensor]:
    """A sample of each layer's inputs on calibration data, empty where the recipe has none."""
    if not batches:
        return {}
    device, _ = compute_place(bench.recipe)
    few = thinned(batches)
    done = iter(range(1, len(few) + 1))
    return sampled_inputs(
        original.model,
        few,
        device,
        lambda: bench.progress(ProgressEvent("reading-calibration", next(done), len(few))),
    )


SQUARED = 1e18  # a weight whose square is near the end of float32


@dataclass
class Walk:
    """State of the block-wise compression."""

    bench: Bench
    original: Opened  # what is compressed
    reference: Opened  # what losses are counted from: the same, or what it was before earlier steps
    settings: dict[str, Technique]
    samples: dict[str, torch.Tensor]  # of the original model's inputs, to judge by
    rows: Rows  # of all blocks so far
    batches: list[Batch]
    # finished blocks, where they cost so much that a run may want to go on from them
    kept: Unfinished
    # of the loss, by each layer's weights, where the technique wants them
    slopes: dict[str, Slopes] = field(default_factory=dict)
    trained: Trained | None = None  # what training has left, where the technique trains
    plain: dict[str, torch.Tensor] = field(init=False)  # norms and biases as they will be written
    # layer -> what its columns were multiplied by
    scaled_inputs: dict[str, torch.Tensor] = field(default_factory=dict)
    # layer -> what its rows were divided by
    scaled_outputs: dict[str, torch.Tensor] = field(default_factory=dict)
    # scales of the inputs of uncompressed routers
    rescaled: dict[str, Stored] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    stream: Stream | None = None
    stage: Literal["compressing", "resuming"] = "compressing"
    found: Rows = field(default_factory=Rows)  # of the block at hand
    # of ``plain``, by the block at hand
    changed: dict[str, torch.Tensor] = field(default_factory=dict)
    judged: int = 0  # compressed layers
    unchanged: dict[str, str] = field(default_factory=dict)  # unchanged ones, with the reason

    def __post_init__(self) -> None:
        self.plain = self.original.plain | (self.trained.plain if self.trained else {})
        self.how = self.bench.how
        if self.how.needs in ("range", "gram"):
            compute, quick = (
                compute_place(self.bench.recipe)[1],
                calibration_dtype(self.bench.recipe),
            )
            try:
                self.stream = self.stream_in(quick)
            except RuntimeError:  # an operation without bfloat16, as FNet's Fourier transform
                if quick == compute:
                    raise
                self.stream = self.stream_in(compute)

    def stream_in(self, dtype: torch.dtype) -> Stream:
        device, _ = compute_place(self.bench.recipe)
        model = sharing(self.bench.folder, self.original, dtype)
        return Stream(model, self.batches, device, lambda: self.bench.progress(self.place))

    @property
    def place(self) -> ProgressEvent:
        done = len(self.rows.layers) + len(self.found.layers)
        return ProgressEvent(self.stage, done, len(self.original.layers))

    @torch.no_grad()
    def done(self, number: int, layers: list[Layer]) -> dict[str, Stored]:
        """Every layer of a block as it will be stored: kept from a run that came so far, or
        compressed now and kept.
        """
        done = self.kept.block(number)
        if done and set(done.layers) == {layer.name for layer in layers}:
            self.stage = "resuming"
            self.install(done)
            self.kept.taken_up += 1
        else:
            self.stage, self.found, self.changed = "compressing", Rows(), {}
            done = Finished(self.block(layers), self.changed, self.found)
            # what was only copied is copied again
            if any(layer.name in self.settings for layer in layers):
                self.kept.keep(number, done)
        if self.stream:
            self.stream.go_on(layers[0].block)
        self.rows.add(done.rows)
        # after each block: those of thousands of experts would take gigabytes
        self.rows.surfaces = most_striking(self.rows.surfaces)
        self.found = Rows()
        return done.layers

    def map_to(self, path: Path) -> None:
        """The model that is walked reads the layers of a block from the file they were written to,
        and no longer from memory.
        """
        if self.stream and self.stream.device.type == "cpu":
            layers, _ = read_file(path)
            for name in layers.keys() & self.settings.keys():
                self.stream.model.get_submodule(name).stored = layers[name]

    def install(self, done: Finished) -> None:
        """Bring the model that is walked to where it was after this block."""
        routers = {layer.name for layer in self.original.layers if layer.routes}
        for name in done.layers.keys() & (self.settings.keys() | routers):
            module = self.stream.model.get_submodule(name)
            module.stored = done.layers[name].to(self.stream.device)
        for name, value in done.plain.items():
            self.settle(name, value)

    def settle(self, name: str, value: torch.Tensor) -> None:
        """A norm's or bias's values as they will be written; the model that is walked computes with
        the same.
        """
        self.plain[name] = self.changed[name] = value
        module, _, part = name.rpartition(".")
        parameter = getattr(self.stream.model.get_submodule(module), part)
        parameter.data = value.to(parameter.device, parameter.dtype)

    def block(self, layers: list[Layer]) -> dict[str, Stored]:
        """Every layer of a block as it will be stored; what each lost is noted in ``found``."""
        names = [layer.name for layer in layers if layer.name in self.settings]
        if self.stream and self.how.in_step and self.stream.goes_in_step(layers[0].block, names):
            return self.in_step(layers, names)
        seen = self.seen(layers[0].block, names) if self.stream and names else self.slopes
        if self.stream and (self.how.folds or self.how.needs == "range"):
            self.found.surfaces.extend(self.surfaces(seen))
        return {layer.name: self.layer(layer, seen.get(layer.name)) for layer in layers}

    def in_step(self, layers: list[Layer], names: list[str]) -> dict[str, Stored]:
        """Compress the layers of a block one after the other, each with inputs from the compressed
        layers before it.
        """
        done, by_name = {}, {layer.name: layer for layer in layers}

        def change(name: str, seen: Seen) -> None:
            done[name] = self.layer(by_name[name], seen)
            module = self.stream.model.get_submodule(name)
            module.unpacked = None
            module.unpacked = module.weight

        unreached = self.stream.in_step(layers[0].block, names, self.how.needs == "gram", change)
        return {
            layer.name: done.get(layer.name) or self.layer(layer, unreached.get(layer.name))
            for layer in layers
        }

    def seen(self, block: str, names: list[str]) -> dict[str, Seen]:
        """Input statistics of the layers on the calibration data, after scales are folded."""
        seen = self.stream.look(block, names, self.how.needs == "gram")
        if self.how.folds and block in self.stream.chain:
            folds = folds_in(self.stream, block, seen, names)
            chosen = [
                (fold, self.scales(fold, pooled(seen[name] for name in fold.sinks)))
                for fold in folds
            ]
            moved = [(fold, scales) for fold, scales in chosen if scales is not None]
            for fold, scales in moved:
                self.fold(fold, scales)
            self.notes |= {
                name: NOT_SCALED
                for name in names
                if not any(name in fold.sinks for fold, _ in moved)
            }
            for fold, scales in moved:
                after = {id(seen[name]): seen[name].scaled(scales) for name in fold.sinks}
                seen |= {name: after[id(seen[name])] for name in fold.sinks}
        elif self.how.folds:
            self.notes |= dict.fromkeys(names, NOT_SCALED)
        return seen

    def surfaces(self, seen: dict[str, Seen]) -> list[pd.DataFrame]:
        """Activation surfaces of every input, under the name of its first layer."""
        firsts = {
            id(each): name for name, each in reversed(seen.items()) if each.missing < each.count
        }.values()
        return [
            surface(name, seen[name], self.scaled_inputs.get(name))
            for name in seen
            if name in firsts
        ]

    def scales(self, fold: Fold, seen: Seen) -> torch.Tensor | None:
        """Input scales of the technique; tried values are recorded."""
        self.bench.progress(self.place)
        answer = scales_for(self.how, fold, [self.weight_of(name) for name in fold.sinks], seen)
        if answer is None:
            return None
        scales, searched = answer
        base, best = max(searched[0][1], 1e-30), min(error for _, error in searched)
        self.found.searches.extend(
            SearchRow(fold.sinks[0], fold.source, alpha, error / base, error == best)
            for alpha, error in searched
        )
        return scales

    def fold(self, fold: Fold, scales: torch.Tensor) -> None:
        """Move scales in the model that is walked, and in the norms and biases that will be
        written.
        """
        fold.apply(self.stream.model, scales)
        outputs = fold.at_source(scales).cpu()
        self.scaled_inputs |= dict.fromkeys(fold.sinks, scales)
        if not fold.from_norm:
            self.scaled_outputs[fold.source] = fold.at_source(scales)
        for name in (f"{fold.source}.weight", f"{fold.source}.bias"):
            if name in self.plain:
                self.settle(name, (self.plain[name].float() / outputs).to(self.plain[name].dtype))
        for name in fold.companions:
            self.rescale(name, scales)

    def rescale(self, name: str, scales: torch.Tensor) -> None:
        """Multiply the columns of an uncompressed router, in the file's number format."""
        if (tensor := f"{name}.weight") in self.plain:
            self.settle(
                tensor, (self.plain[tensor].float() * scales.cpu()).to(self.plain[tensor].dtype)
            )
        else:
            held = self.original.model.get_submodule(name).stored
            weight = (held.dense(torch.float32) * scales).to(
                held.weight.dtype if isinstance(held, Dense) else torch.float32
            )
            self.rescaled[name] = self.stream.model.get_submodule(name).stored = Dense(
                tuple(weight.shape), weight
            )

    def weight_of(self, name: str) -> torch.Tensor:
        model = self.stream.model if self.stream else self.original.model
        return model.get_submodule(name).stored.dense(torch.float32)

    def layer(self, layer: Layer, seen: Seen | Slopes | None) -> Stored:
        """One layer as it will be stored."""
        free_unused_memory()
        self.bench.progress(self.place)
        held = self.original.model.get_submodule(layer.name).stored
        if layer.name not in self.settings:
            why = why_kept(layer, self.original.tied, self.bench.recipe.layers)
            return self.kept_for(
                layer,
                self.rescaled.get(layer.name, held).to("cpu"),
                f"{why}; {RESCALED}" if layer.name in self.rescaled else why,
            )
        setting = self.settings[layer.name]
        if self.trained:
            self.judge(layer, held, self.trained.layers[layer.name].to(self.original.device), seen)
            return self.trained.layers[layer.name]
        if seen is None and setting.needs != "nothing":
            return self.kept_for(
                layer, held, why_not_seen(setting, self.original.model.get_submodule(layer.name))
            )
        try:
            stored = compress_further(
                setting, held, self.weight_of(layer.name), seen, self.bench.keeps_zeros
            )
        except PlainError as error:
            raise PlainError(f"{layer.name}: {error}") from None
        if self.stream:
            self.stream.model.get_submodule(layer.name).stored = stored
        self.judge(layer, held, stored, seen)
        return stored.to("cpu")

    def kept_for(self, layer: Layer, held: Stored, why: str) -> Stored:
        self.found.layers.append(kept_row(layer, held.nbytes, why))
        return held

    def judge(self, layer: Layer, held: Stored, stored: Stored, seen: Seen | Slopes | None) -> None:
        """Record a layer's error.

        Raises PlainError if it became NaN, or did not change although it should have.
        """
        before, inputs = held.dense(torch.float32), self.sample_for(layer)
        original = (
            self.reference.model.get_submodule(layer.name).stored.dense(torch.float32)
            if self.reference is not self.original
            else before
        )
        judged = Judged(layer, original, self.unscaled(layer.name, stored.dense()))
        setting, constant = self.settings[layer.name], bool(before.min() == before.max())
        notes = [
            self.notes.get(layer.name, ""),
            narrow(setting, layer),
            EQUAL_WEIGHTS if constant else "",
        ]
        notes += dict.fromkeys(seen.warnings if seen else ())
        converted = dtypes_of(held, stored)
        if converted and torch.equal(judged.compressed, before):
            notes.append(
                f"{converted[1]} holds every {converted[0]} weight of the file exactly: "
                "nothing is lost, only the bytes change"
            )
        if torch.equal(judged.compressed, before) and not (
            constant or converted or setting.may_change_nothing
        ):
            self.unchanged[layer.name] = reason = why_unchanged(setting, layer, stored, before)
            if not reason:
                raise PlainError(broken(layer.name, setting))
            notes.append(reason)
        self.judged += 1
        received = (
            None
            if inputs is None
            else self.received(layer.name, stored, inputs.to(original.device))
        )
        row = judged.row(
            stored, setting.technique, received, "; ".join(note for note in notes if note)
        )
        if not row.relative_error < float("inf"):
            raise PlainError(unmeasurable(row.name, original))
        self.found.layers.append(row)
        self.found.channels.append(judged.channels())
        self.found.histograms.extend(judged.histogram())
        self.found.levels.extend(
            ()
            if layer.name in self.scaled_inputs | self.scaled_outputs
            else level_rows(row.name, stored)
        )
        self.found.add(portrait(setting, layer.name, original, stored, seen))
        if isinstance(seen, Seen) and seen.missing < seen.count:
            self.found.inputs.append(self.input_rows(judged, seen))

    def sample_for(self, layer: Layer) -> torch.Tensor | None:
        """Sample of a layer's inputs; for an embedding, of the output layer tied to it."""
        tied = [
            layer.name,
            *(other.name for other in self.original.tied if other.tied_to == layer.name),
        ]
        return next((self.samples[name] for name in tied if name in self.samples), None)

    def refuse_unchanged(self) -> None:
        """Check that at least one compressed layer has changed.

        Raises PlainError otherwise.
        """
        if self.unchanged and len(self.unchanged) == self.judged:
            name, reason = next(iter(self.unchanged.items()))
            raise PlainError(f"No layer has changed: {name} {reason}. {ADVICE_UNCHANGED}")

    def notes_on_layers(self) -> list[str]:
        """Notes of a result on unchanged layers, and on included embeddings that were treated
        differently.
        """
        notes, rows = [], {row.name: row for row in self.rows.layers}
        if self.unchanged:
            names = ", ".join(list(self.unchanged)[:3]) + (
                " and others" if len(self.unchanged) > 3 else ""
            )
            notes.append(
                f"{len(self.unchanged)} of {self.judged} layers needed no change: {names}."
            )
        for layer in included_embeddings(self.original.layers, self.bench.recipe.layers):
            if not rows[layer.name].technique:
                notes.append(
                    f"{layer.name} is included (layers.include) but was not changed: "
                    f"{rows[layer.name].note}."
                )
            elif self.notes.get(layer.name) == NOT_SCALED:
                notes.append(
                    f"{layer.name} is included (layers.include) and was treated {UNSCALED}."
                )
        return notes

    def unscaled(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        """A stored weight in the original's terms."""
        if name in self.scaled_inputs:
            weight = weight / self.scaled_inputs[name]
        return (
            weight * self.scaled_outputs[name][:, None] if name in self.scaled_outputs else weight
        )

    def received(
        self, name: str, stored: Stored, inputs: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A sample of the layer's inputs, and what the compressed layer makes of them."""
        inputs = inputs.float()
        scales = self.scaled_inputs.get(name)
        return inputs, stored.received(inputs) if scales is None else stored.received(
            inputs / scales
        ) * scales

    def input_rows(self, judged: Judged, seen: Seen) -> pd.DataFrame:
        """InputRow of every input channel, in the original's terms; as columns. A convolution's
        channel has its kernel's whole area.
        """
        scales = self.scaled_inputs.get(judged.layer.name, torch.ones_like(seen.abs_mean))
        mean, largest, scale = (
            each.view(-1, seen.area)
            for each in (seen.abs_mean * scales, seen.abs_max * scales, scales)
        )
        lost, whole = (
            each.square().sum(0).view(-1, seen.area).sum(1).sqrt()
            for each in (judged.missed, judged.original)
        )
        lost = lost / whole.clamp_min(1e-30)
        numbers = {
            "magnitude": mean.mean(1),
            "largest": largest.amax(1),
            "scale": scale[:, 0],
            "weight_error": lost,
        }
        columns = {name: values.double().cpu().numpy() for name, values in numbers.items()}
        return pd.DataFrame(
            {"layer": judged.layer.name, "channel": np.arange(len(lost)), **columns}
        )


def dtypes_of(held: Stored, stored: Stored) -> tuple[str, str] | None:
    """Original and new dtype of a dense weight that was only cast, possibly without loss."""
    if (
        not (isinstance(held, Dense) and isinstance(stored, Dense))
        or held.weight.dtype == stored.weight.dtype
    ):
        return None
    return tuple(str(each.weight.dtype).removeprefix("torch.") for each in (held, stored))


def unmeasurable(name: str, original: torch.Tensor) -> str:
    largest = original.abs().max().item()
    if largest < SQUARED:
        return f"{name} became NaN while it was compressed; please report this recipe."
    return (
        f"{name} holds a weight of {largest:.0e}, too large to compute with in float32; check "
        "the model, or skip the layer under layers.skip."
    )


def why_unchanged(setting: Technique, layer: Layer, stored: Stored, before: torch.Tensor) -> str:
    """Reason why a layer is rightly unchanged, as the end of a sentence; empty if the method should
    have changed it.
    """
    if isinstance(setting, Pruning):
        zeros = 1 - before.count_nonzero().item() / layer.parameters
        enough = before.count_nonzero().item() <= left_of(setting, layer.matrix_shape)
        return (
            (
                f"is unchanged because {zeros:.1%} of its weights were already zero, as many as "
                "requested"
            )
            if enough
            else ""
        )
    if isinstance(stored, Dense):
        dtype = str(stored.weight.dtype).removeprefix("torch.")
        return f"is already stored in {dtype}" if getattr(setting, "format", "") == dtype else ""
    return "is unchanged because this format represents each of its weights exactly"


def broken(name: str, setting: Technique) -> str:
    return (
        f"{name} is unchanged, although {setting.title} should have changed it; please report "
        "this recipe, or add the layer to "
        "Layers to skip (layers.skip)."
    )


ADVICE_UNCHANGED = (
    "Choose a stronger setting (fewer bits, a shorter format, more zeros) or another model."
)
NOT_SCALED = "no norm or layer before it can take a scale, so it was rounded without one"
UNSCALED = "without scales, since nothing before it can take them"
RESCALED = "it takes the scales of its inputs"
NOT_SEEN = "its inputs cannot be seen (an embedding or grouped convolution)"
NOT_REACHED = "no calibration data reached it"
NO_GRADIENT = "the loss on the calibration data has no gradient for its weights"
EQUAL_WEIGHTS = "all its weights are equal"


def why_not_seen(setting: Technique, module: nn.Module) -> str:
    if setting.needs == "gradients":
        return NO_GRADIENT
    return NOT_REACHED if seeable(module) else NOT_SEEN


def narrow(setting: Technique, layer: Layer) -> str:
    """Note for rows with fewer weights than a group."""
    in_ = layer.matrix_shape[1]
    return (
        (
            f"a row has {in_:,} weights, fewer than a group of {setting.group:,}: each row has "
            "one scale"
        )
        if in_ < setting.group
        else ""
    )
