"""Entry point of a run: measure the original, compress it block by block, and measure what was
written.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import torch

from engine.errors import PlainError
from engine.evaluation import EvaluationResult, cached_baseline
from engine.evaluation.evaluation import check_task_kind
from engine.events import ProgressEvent, Report
from engine.measurement.generations import sample_rows
from engine.measurement.latency import latency_rows
from engine.measurement.latency_inputs import largest_inputs
from engine.measurement.scores import baseline_scores
from engine.measurement.similarity import similarity_rows
from engine.measurement.student_errors import mistake_tables
from engine.models.layers import selected_layers, text_reader
from engine.models.loaded_model import LoadedModel, device_and_dtype, load_model, other_parts_notes
from engine.models.loading import check_finite, explain_load_errors, resolve_model
from engine.models.packed_folder import PackedFolder, explain_write_errors
from engine.pipeline.preflight import check_steps
from engine.pipeline.resume import open_resume_store
from engine.pipeline.step_metrics import Qualities, StepMetrics, main_split
from engine.pipeline.steps import run_steps
from engine.recipe import Recipe
from engine.results.schema.outcome import Outcome
from engine.results.schema.record import Scores, Summary
from engine.results.schema.tables import CurveRow
from engine.results.store import atomic_files
from engine.runtime.local_paths import allow_folder
from engine.runtime.platform_support import peak_rss_bytes, reset_peak
from engine.runtime.temporary_folders import temporary_folder
from engine.step.run_context import RunContext
from engine.step.table_builder import TableBuilder

MAX_COPY_BYTES = 256 << 20  # maximum bytes of a compressed model that is kept after a run
FREE_SPACE_FACTOR = 4  # factor of its size that must be free on the disk


def run(
    recipe: Recipe,
    run_id: str = "",
    save: Path | None = None,
    keep: Path | None = None,
    report: Report = RunContext.report,
    cancelled: Callable[[], bool] = RunContext.cancelled,
    stream: Callable[[list[CurveRow]], None] = RunContext.stream,
) -> Outcome:
    """Run a recipe. The compressed model is written to ``save``; without it, a small model is kept
    at ``keep`` if there is room.

    Raises PlainError for everything the user can fix, and Cancelled if the user stops the run.
    """
    start = time.perf_counter()
    reset_peak()
    torch.manual_seed(recipe.seed)
    context = RunContext(
        recipe,
        resolve_model(recipe.model, report),
        report,
        cancelled,
        stream=stream,
    )
    check_run(context, save)
    original = load_model(context.folder, *device_and_dtype(recipe))
    targets = selected_layers(original.layers, recipe.layers) if recipe.steps else []
    with working_folder(save) as out, open_resume_store() as resume_store:
        baseline = evaluate_original(context, original)
        stages = StepMetrics(baseline_scores(original, targets, main_split(baseline)), baseline)
        rows, packed, seconds = run_steps(
            context, original, out, resume_store, partial(record_step_metrics, stages)
        )
        result = evaluate_result(context, original, packed, stages, rows)
        if keep and recipe.steps:
            keep_copy(out, keep, result.size_bytes)
    rows.stages = stages.rows
    summary = Summary(
        run=run_id,
        model=recipe.model,
        revision=context.folder.revision,
        architecture=context.folder.architecture,
        device=str(original.device),
        protocol=main_split(baseline).protocol,
        baseline=stages.before,
        result=result,
        ended_early=bool(context.ended_early),
        notes=unique_notes(
            *context.folder.notes,
            *original.notes,
            *data_notes(baseline),
            *context.notes,
            *(end.note for end in context.ended_early),
            *resumed_blocks_note(resume_store.resumed_blocks),
            *model_notes(original, recipe),
        ),
        seconds=time.perf_counter() - start,
        compress_seconds=seconds,
        peak_rss_bytes=peak_rss_bytes(),
    )
    return Outcome(summary, rows.tables())


def data_notes(baseline: Qualities) -> list[str]:
    """Notes on assumptions about the evaluation data."""
    return [note for measured in baseline.values() for note in measured.notes]


def unique_notes(*notes: str) -> tuple[str, ...]:
    """Remove duplicate notes: one file may be used for evaluation and calibration."""
    return tuple(dict.fromkeys(notes))


def resumed_blocks_note(blocks: int) -> list[str]:
    return (
        [
            (
                f"{blocks} of its blocks were finished by an earlier run of this recipe that was "
                "stopped; this run resumed from there."
            )
        ]
        if blocks
        else []
    )


def model_notes(original: LoadedModel, recipe: Recipe) -> list[str]:
    """Notes on parts of the model that no step can change."""
    return [*other_parts_notes(original), *(uncompressible_note(original) if recipe.steps else [])]


def uncompressible_note(original: LoadedModel) -> list[str]:
    """Weights outside of layers of a known kind, which no step can change."""
    reads_text = text_reader(original.model)
    tensors = {
        name: value for name, value in original.plain.items() if value.ndim > 1 and reads_text(name)
    }
    share = sum(value.numel() for value in tensors.values()) / original.parameters
    named = ", ".join(list(tensors)[:3]) + (" and others" if len(tensors) > 3 else "")
    return (
        [
            (
                f"{share:.1%} of the weights are outside the compressible layers, so they are "
                f"unchanged: {named}."
            )
        ]
        if tensors
        else []
    )


def check_run(context: RunContext, save: Path | None) -> None:
    """Check the recipe before heavy work starts."""
    check_task_kind(context.recipe.task, context.folder)
    if save and not context.recipe.steps:
        raise PlainError(
            "The recipe has no steps, so there is nothing to save; add a step, or leave --save out."
        )
    check_steps(context.recipe, context.folder)
    check_finite(context.folder)


@contextmanager
def working_folder(save: Path | None) -> Iterator[Path]:
    """Folder for the compressed model: kept if requested, otherwise removed afterwards."""
    if save:
        with claim_output_folder(save), allow_folder(save):
            yield save
    else:
        with temporary_folder("run") as folder:
            yield folder


def keep_copy(out: Path, keep: Path, size: int) -> None:
    """Keep a copy of the model. If that fails, because the disk is full or the worker is on another
    machine, the run still succeeds.
    """
    with suppress(OSError):
        if (
            size <= MAX_COPY_BYTES
            and keep.parent.is_dir()
            and shutil.disk_usage(keep.parent).free > FREE_SPACE_FACTOR * size
        ):
            with atomic_files.folder_draft(keep) as draft:
                shutil.copytree(out, draft, dirs_exist_ok=True)


@contextmanager
def claim_output_folder(save: Path) -> Iterator[None]:
    """A new or empty folder to write to, emptied again if the run fails. Raises PlainError for any
    other.
    """
    with explain_write_errors(save):
        new = not save.exists()
        save.mkdir(parents=True, exist_ok=True)
        empty = not any(save.iterdir())
    if not empty:
        raise PlainError(
            f"The folder {str(save)!r} is not empty; give an empty or a new one to save into."
        )
    try:
        yield
    except BaseException:
        for path in [*save.iterdir(), *([save] if new else [])]:
            atomic_files.remove(path)
        raise


def evaluate_original(context: RunContext, original: LoadedModel) -> Qualities:
    """Evaluate the original on each split, cached for all runs that start from the model. Raises
    PlainError if the model fails.
    """

    def evaluate_split(split_context: RunContext) -> EvaluationResult:
        with explain_load_errors(
            split_context.folder, f"{split_context.folder} does not compute on this data"
        ):
            return cached_baseline(
                split_context.recipe,
                split_context.folder,
                lambda: split_context.evaluate(
                    original.model, split_context.folder, ProgressEvent("measuring-original")
                ),
            )

    return {
        split: evaluate_split(split_context) for split, split_context in context.by_split.items()
    }


def record_step_metrics(
    stages: StepMetrics,
    context: RunContext,
    compressed: LoadedModel,
    packed: PackedFolder,
    tables: TableBuilder,
) -> None:
    """Record quality and size of the model that a step has written."""
    done, steps = context.step, context.recipe.steps
    event = ProgressEvent("measuring-step", step=done, steps=len(steps))
    qualities = context.evaluate_splits(compressed.model, context.folder, event)
    stages.record_model(done, steps[done - 1].label(), compressed, qualities)


def evaluate_result(
    context: RunContext,
    original: LoadedModel,
    packed: PackedFolder | None,
    stages: StepMetrics,
    tables: TableBuilder,
) -> Scores:
    """Quality and size of the final model, reloaded from its files."""
    if packed is None:
        return stages.before.model_copy(update={"agreement": 1.0})
    folder, step = resolve_model(str(packed.folder)), len(context.recipe.steps)
    reopened = load_model(folder, *device_and_dtype(context.recipe))
    with largest_inputs(reopened.model) as inputs:
        event = ProgressEvent("measuring-result")
        qualities = context.evaluate_splits(reopened.model, folder, event)
    technique = context.recipe.steps[-1].label()
    scores = stages.record_model(step, technique, reopened, qualities)
    if context.recipe.speed:
        compressed_names = [row.name for row in tables.layers if row.technique]
        tables.latency.extend(latency_rows(context, original, reopened, compressed_names, inputs))
        stages.record_latency(step, technique, tables.latency)
    if any(step.trains_student for step in context.recipe.steps):
        tables.similarity.extend(similarity_rows(context, original, reopened))
        tables.add(
            mistake_tables(
                context, main_split(stages.baseline), main_split(qualities), original, reopened
            )
        )
    context.progress(ProgressEvent("writing-examples", 0, 1))
    tables.samples.extend(
        sample_rows(context.recipe, context.folder, original.model, reopened.model)
    )
    return scores
