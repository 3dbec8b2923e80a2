"""The steps of a recipe one after the other, each applied to the model that the previous one has
written.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from engine.measurement.error import unchanged_row
from engine.measurement.size import by_original_parameters
from engine.models.layers import selected_layers
from engine.models.loaded_model import LoadedModel, device_and_dtype, load_model
from engine.models.model_source import ModelSource, resolve_model
from engine.models.packed_folder import PackedFolder
from engine.pipeline.blockwise import run_step
from engine.pipeline.resume import ResumeStore
from engine.runtime.temporary_folders import temporary_folder
from engine.step.run_context import RunContext
from engine.step.table_builder import TableBuilder

# (context of the next step, model before it, rows so far)
OnStepDone = Callable[[RunContext, LoadedModel, PackedFolder, TableBuilder], None]


def run_steps(
    context: RunContext,
    original: LoadedModel,
    out: Path,
    resume_store: ResumeStore,
    on_step_done: OnStepDone,
) -> tuple[TableBuilder, PackedFolder | None, float]:
    """Run all steps and return their rows, the folder of the last one and the seconds of all steps.
    Without steps nothing is written.

    ``on_step_done`` receives the reloaded result of every step but the last.
    """
    rows, packed, seconds, current, comparable = TableBuilder(), None, 0.0, original, True
    if not context.recipe.steps:
        rows.layers.extend(
            by_original_parameters(
                (unchanged_row(layer, original.stored_bytes(layer)) for layer in original.layers),
                original,
            )
        )
    with step_folders(context, out) as folders:
        for number, folder in enumerate(folders):
            step_context = (
                context
                if packed is None
                else replace(context, step=number, folder=written_folder(context, packed))
            )
            current = (
                current
                if packed is None
                else load_model(step_context.folder, *device_and_dtype(context.recipe))
            )
            if packed:
                on_step_done(step_context, current, packed, rows)
            reference = original if comparable and has_same_layers(original, current) else current
            done = run_step(
                step_context,
                current,
                selected_layers(current.layers, context.recipe.layers),
                folder,
                resume_store,
                reference,
            )
            rows, packed = rows.followed_by(done.rows), done.packed
            seconds, comparable = seconds + done.seconds, comparable and done.comparable
    return rows, packed, seconds


@contextmanager
def step_folders(context: RunContext, out: Path) -> Iterator[list[Path]]:
    """Yield the folder of each step: ``out`` for the last one, temporary folders for the others."""
    with temporary_folder("run") as root:
        steps = len(context.recipe.steps)
        folders = [root / str(number) for number in range(steps - 1)]
        for folder in folders:
            folder.mkdir()
        yield [*folders, out][:steps]


def written_folder(context: RunContext, packed: PackedFolder) -> ModelSource:
    """Folder written by the previous step, under the name of the user's model, which
    messages show.
    """
    return replace(
        resolve_model(str(packed.folder)),
        reference=context.folder.reference,
        revision=context.folder.revision,
    )


def has_same_layers(original: LoadedModel, current: LoadedModel) -> bool:
    """Return True if layers have kept their shapes, so that errors can be computed against the
    original's weights.
    """
    return [(layer.name, layer.shape) for layer in original.layers] == [
        (layer.name, layer.shape) for layer in current.layers
    ]
