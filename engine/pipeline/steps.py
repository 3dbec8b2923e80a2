"""The steps of a recipe one after the other, each over the model that the one before it has
written.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from engine.measurement.error import kept_row
from engine.measurement.size import by_original_parameters
from engine.models.layers import chosen
from engine.models.loaded_model import Opened, compute_place, opened
from engine.models.model_source import resolve
from engine.models.packed_folder import PackedFolder
from engine.pipeline.blockwise import compressed_folder
from engine.pipeline.resume import Unfinished
from engine.runtime.temporary_folders import temporary_folder
from engine.step.run_context import Bench
from engine.step.table_builder import TableBuilder

# at the step to come, what was written before it, and what was noted of that
Between = Callable[[Bench, Opened, PackedFolder, TableBuilder], None]


def every_step(
    bench: Bench, original: Opened, out: Path, kept: Unfinished, look: Between
) -> tuple[TableBuilder, PackedFolder | None, float]:
    """Return the notes, the folder that the last step wrote, and the seconds of all steps; without
    steps nothing is written.

    ``look`` is shown what every step but the last has written, opened again for the step after it.
    """
    rows, packed, seconds, subject, comparable = TableBuilder(), None, 0.0, original, True
    if not bench.recipe.steps:
        rows.layers.extend(
            by_original_parameters(
                (kept_row(layer, original.held_bytes(layer)) for layer in original.layers), original
            )
        )
    with between(bench, out) as folders:
        for number, folder in enumerate(folders):
            at = (
                bench
                if packed is None
                else replace(bench, step=number, folder=written(bench, packed))
            )
            subject = subject if packed is None else opened(at.folder, *compute_place(bench.recipe))
            if packed:
                look(at, subject, packed, rows)
            reference = original if comparable and same_layers(original, subject) else subject
            done = compressed_folder(
                at, subject, chosen(subject.layers, bench.recipe.layers), folder, kept, reference
            )
            rows, packed = rows.followed_by(done.rows), done.packed
            seconds, comparable = seconds + done.seconds, comparable and done.comparable
    return rows, packed, seconds


@contextmanager
def between(bench: Bench, out: Path) -> Iterator[list[Path]]:
    """Yield the folder of each step: ``out`` for the last one, temporary folders for the others."""
    with temporary_folder("run") as place:
        steps = len(bench.recipe.steps)
        folders = [place / str(number) for number in range(steps - 1)]
        for folder in folders:
            folder.mkdir()
        yield [*folders, out][:steps]


def written(bench: Bench, packed: PackedFolder):
    """The folder of the step before; messages go on to speak of the model that the user has
    named.
    """
    return replace(
        resolve(str(packed.folder)),
        reference=bench.folder.reference,
        revision=bench.folder.revision,
    )


def same_layers(original: Opened, subject: Opened) -> bool:
    """Return True if layers have kept their shapes, so that errors can be computed against the
    original's weights.
    """
    return [(layer.name, layer.shape) for layer in original.layers] == [
        (layer.name, layer.shape) for layer in subject.layers
    ]
