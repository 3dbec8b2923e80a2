"""The steps of a recipe one after the other, each over the model that the one before it has written."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from engine.work.bench import Bench, Rows
from engine.work.folders import resolve
from engine.work.layers import chosen
from engine.work.measure.error import kept_row
from engine.work.opened import Opened, compute_place, opened
from engine.work.stored.files import PackedFolder
from engine.work.unfinished import Unfinished
from engine.work.walk import compressed_folder

Between = Callable[[Bench, Opened, PackedFolder, Rows], None]  # at the step to come, what was written before it, and what was noted of that


def every_step(bench: Bench, original: Opened, out: Path, kept: Unfinished, look: Between) -> tuple[Rows, PackedFolder | None, float]:
    """What was noted, what the last step has written, and the seconds that all took; without steps nothing is written.

    ``look`` is shown what every step but the last has written, opened again for the step after it.
    """
    rows, packed, seconds, subject = Rows(), None, 0.0, original
    if not bench.recipe.steps:
        rows.layers.extend(kept_row(layer, original.held_bytes(layer)) for layer in original.layers)
    with between(bench, out) as folders:
        for number, folder in enumerate(folders):
            at = bench if packed is None else replace(bench, step=number, folder=written(bench, packed))
            subject = subject if packed is None else opened(at.folder, *compute_place(bench.recipe))
            if packed:
                look(at, subject, packed, rows)
            reference = original if same_layers(original, subject) else subject
            more, packed, took = compressed_folder(at, subject, chosen(subject.layers, bench.recipe.layers), folder, kept, reference)
            rows, seconds = rows.followed_by(more), seconds + took
    return rows, packed, seconds


@contextmanager
def between(bench: Bench, out: Path) -> Iterator[list[Path]]:
    """Where each step writes: the last one to ``out``, the others to places that are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="compression-explorer-", ignore_cleanup_errors=True) as place:
        steps = len(bench.recipe.steps)
        folders = [Path(place) / str(number) for number in range(steps - 1)]
        for folder in folders:
            folder.mkdir()
        yield [*folders, out][:steps]


def written(bench: Bench, packed: PackedFolder):
    """The folder of the step before; messages go on to speak of the model that a person has named."""
    return replace(resolve(str(packed.folder)), reference=bench.folder.reference, revision=bench.folder.revision)


def same_layers(original: Opened, subject: Opened) -> bool:
    """Whether layers have kept their shapes, so that a loss can be counted from the original's weights."""
    return [(layer.name, layer.shape) for layer in original.layers] == [(layer.name, layer.shape) for layer in subject.layers]
