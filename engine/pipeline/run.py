"""Recipe in, result out: measure the original, compress block by block, measure what was
written.
"""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import torch

from engine.errors import PlainError
from engine.evaluation import Measured, measured_once
from engine.evaluation.evaluation import refuse_other_kind
from engine.events import ProgressEvent, Report
from engine.measurement.generations import sample_rows
from engine.measurement.latency import latency_rows
from engine.measurement.latency_inputs import largest_inputs
from engine.measurement.scores import baseline_scores
from engine.measurement.similarity import similarity_rows
from engine.measurement.student_errors import mistakes
from engine.models.layers import chosen, text_reader
from engine.models.loaded_model import Opened, compute_place, opened, other_parts
from engine.models.loading import check_finite, resolve, told
from engine.models.packed_folder import PackedFolder, plainly_written
from engine.pipeline.preflight import refuse_steps
from engine.pipeline.resume import unfinished
from engine.pipeline.step_metrics import Qualities, Stages, first
from engine.pipeline.steps import every_step
from engine.recipe import Recipe
from engine.results.schema.outcome import Outcome
from engine.results.schema.record import Scores, Summary
from engine.results.store import atomic_files
from engine.runtime.local_paths import own_folder
from engine.runtime.platform_support import peak_rss_bytes, reset_peak
from engine.runtime.temporary_folders import temporary_folder
from engine.step.run_context import Bench
from engine.step.table_builder import TableBuilder

KEPT_BYTES = 256 << 20  # of a compressed model, up to which a run leaves a copy
ROOM = 4  # times as much must be free


def run(
    recipe: Recipe,
    run_id: str = "",
    save: Path | None = None,
    keep: Path | None = None,
    report: Report = Bench.report,
    cancelled=Bench.cancelled,
    stream=Bench.stream,
) -> Outcome:
    """The compressed model is written to ``save``; without that, a small one is left at ``keep``
    where there is room.
    Raises PlainError for everything the user can fix, Cancelled when asked to stop.
    """
    began = time.perf_counter()
    reset_peak()
    torch.manual_seed(recipe.seed)
    bench = Bench(
        recipe,
        resolve(recipe.model, report),
        report,
        cancelled,
        stream=stream,
    )
    check(bench, save)
    original = opened(bench.folder, *compute_place(recipe))
    targets = chosen(original.layers, recipe.layers) if recipe.steps else []
    with working_folder(save) as out, unfinished() as kept:
        baseline = measured_original(bench, original)
        stages = Stages(baseline_scores(original, targets, first(baseline)), baseline)
        rows, packed, seconds = every_step(
            bench, original, out, kept, partial(measured_between, stages)
        )
        result = measured_result(bench, original, packed, stages, rows)
        if keep and recipe.steps:
            kept_copy(out, keep, result.size_bytes)
    rows.stages = stages.rows
    summary = Summary(
        run=run_id,
        model=recipe.model,
        revision=bench.folder.revision,
        architecture=bench.folder.architecture,
        device=str(original.device),
        protocol=first(baseline).protocol,
        baseline=stages.before,
        result=result,
        ended_early=bool(bench.ended_early),
        notes=without_copies(
            *bench.folder.notes,
            *original.notes,
            *data_notes(baseline),
            *bench.notes,
            *(end.note for end in bench.ended_early),
            *taken_up(kept.taken_up),
            *notes_on(original, recipe),
        ),
        seconds=time.perf_counter() - began,
        compress_seconds=seconds,
        peak_rss_bytes=peak_rss_bytes(),
    )
    return Outcome(summary, rows.tables())


def data_notes(baseline: Qualities) -> list[str]:
    """Notes on assumptions about the evaluation data."""
    return [note for measured in baseline.values() for note in measured.notes]


def without_copies(*notes: str) -> tuple[str, ...]:
    """Remove duplicate notes: one file may be used for evaluation and calibration."""
    return tuple(dict.fromkeys(notes))


def taken_up(blocks: int) -> list[str]:
    return (
        [
            (
                f"{blocks} of its blocks were finished by an earlier run of this recipe that was "
                "stopped; this one went on from there."
            )
        ]
        if blocks
        else []
    )


def notes_on(original: Opened, recipe: Recipe) -> list[str]:
    """Notes on parts of the model that no step can change."""
    return [*other_parts(original), *(outside_layers(original) if recipe.steps else [])]


def outside_layers(original: Opened) -> list[str]:
    """Weights that no step could reach: those that stand in no layer of a known kind."""
    reads_text = text_reader(original.model)
    tensors = {
        name: value for name, value in original.plain.items() if value.ndim > 1 and reads_text(name)
    }
    share = sum(value.numel() for value in tensors.values()) / original.parameters
    named = ", ".join(list(tensors)[:3]) + (" and others" if len(tensors) > 3 else "")
    return (
        [
            (
                f"{share:.1%} of the weights stand in no layer that can be compressed here, so "
                f"they stay as they are: {named}."
            )
        ]
        if tensors
        else []
    )


def check(bench: Bench, save: Path | None) -> None:
    """Refuse before anything heavy is done."""
    refuse_other_kind(bench.recipe.task, bench.folder)
    if save and not bench.recipe.steps:
        raise PlainError(
            "The recipe has no steps, so there is nothing to save; add a step, or leave --save out."
        )
    refuse_steps(bench.recipe, bench.folder)
    check_finite(bench.folder)


@contextmanager
def working_folder(save: Path | None) -> Iterator[Path]:
    """Folder for the compressed model: kept if requested, otherwise removed afterwards."""
    if save:
        with claimed(save), own_folder(save):
            yield save
    else:
        with temporary_folder("run") as folder:
            yield folder


def kept_copy(out: Path, keep: Path, size: int) -> None:
    """A disk that refuses, or a worker elsewhere, costs the copy and never the run."""
    part = keep.with_name(f".{keep.name}")
    with suppress(OSError):
        if (
            size <= KEPT_BYTES
            and keep.parent.is_dir()
            and shutil.disk_usage(keep.parent).free > ROOM * size
        ):
            try:
                shutil.copytree(out, part)
                part.rename(keep)
            finally:
                atomic_files.remove(part)


@contextmanager
def claimed(save: Path) -> Iterator[None]:
    """A new or empty folder to write to; left as it was found when the run does not finish. Raises
    PlainError for any other.
    """
    with plainly_written(save):
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


def measured_original(bench: Bench, original: Opened) -> Qualities:
    """Measured once for all runs that start from the model, each split by itself. Raises PlainError
    if the model fails.
    """

    def measured(at: Bench) -> Measured:
        with told(at.folder, f"{at.folder} does not compute on this data"):
            return measured_once(
                at.recipe,
                at.folder,
                lambda: at.measured(original.model, at.folder, ProgressEvent("measuring-original")),
            )

    return {split: measured(at) for split, at in bench.by_split.items()}


def measured_between(
    stages: Stages, bench: Bench, subject: Opened, packed: PackedFolder, rows: TableBuilder
) -> None:
    """Quality and bytes of what the step before has written."""
    done, steps = bench.step, bench.recipe.steps
    event = ProgressEvent("measuring-step", step=done, steps=len(steps))
    qualities = bench.qualities(subject.model, bench.folder, event)
    stages.after(done, steps[done - 1].label(), subject, qualities)


def measured_result(
    bench: Bench, original: Opened, packed: PackedFolder | None, stages: Stages, rows: TableBuilder
) -> Scores:
    """Quality and bytes of the model as written: it is loaded from its files again."""
    if packed is None:
        return stages.before.model_copy(update={"agreement": 1.0})
    folder, step = resolve(str(packed.folder)), len(bench.recipe.steps)
    reopened = opened(folder, *compute_place(bench.recipe))
    with largest_inputs(reopened.model) as inputs:
        event = ProgressEvent("measuring-result")
        qualities = bench.qualities(reopened.model, folder, event)
    technique = bench.recipe.steps[-1].label()
    scores = stages.after(step, technique, reopened, qualities)
    if bench.recipe.speed:
        treated = [row.name for row in rows.layers if row.technique]
        rows.latency.extend(latency_rows(bench, original, reopened, treated, inputs))
        stages.timed(step, technique, rows.latency)
    if any(step.trains_student for step in bench.recipe.steps):
        rows.similarity.extend(similarity_rows(bench, original, reopened))
        rows.add(mistakes(bench, first(stages.baseline), first(qualities), original, reopened))
    bench.progress(ProgressEvent("writing-examples", 0, 1))
    rows.samples.extend(sample_rows(bench.recipe, bench.folder, original.model, reopened.model))
    return scores
