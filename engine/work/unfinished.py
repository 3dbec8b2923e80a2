"""Blocks that a run has finished, kept until the run is: one that was cancelled or killed goes on from there."""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import torch
from safetensors import SafetensorError

from engine.errors import Cancelled, PlainError
from engine.results import disk, parquet
from engine.results.store import home
from engine.work.bench import Bench, Rows
from engine.work.stored.files import read_file, write_file
from engine.work.stored.weights import Stored

MOST = 5  # unfinished runs kept, the latest
UNREADABLE = (OSError, PlainError, SafetensorError, ValueError, KeyError, TypeError)


@dataclass(frozen=True)
class Finished:
    """One block: its layers as stored, the norms and biases that changed with them, and what was noted."""

    layers: dict[str, Stored]
    plain: dict[str, torch.Tensor]
    rows: Rows


@dataclass
class Unfinished:
    """The blocks of one run, in their order. A disk that cannot be written costs what would have been kept, never the run."""

    folder: Path | None  # None: nothing is kept

    def block(self, number: int) -> Finished | None:
        """What was kept of a block; None where nothing was, or it is damaged."""
        path = self.path(number)
        if path is None or not path.is_dir():
            return None
        with suppress(*UNREADABLE):
            layers, plain = read_file(path / "block.safetensors")
            return Finished(layers, plain, Rows.of(parquet.load(path)))
        return None

    def keep(self, number: int, done: Finished) -> None:
        """Whole or not at all."""
        path = self.path(number)
        if path is None:
            return
        part = path.with_name(f".{uuid4().hex}")
        with suppress(OSError, PlainError):
            try:
                part.mkdir(parents=True)
                write_file(part / "block.safetensors", done.layers, done.plain)
                parquet.save(done.rows.tables(), part)
                shutil.rmtree(path, ignore_errors=True)
                part.rename(path)
            finally:
                shutil.rmtree(part, ignore_errors=True)

    def path(self, number: int) -> Path | None:
        return self.folder / f"block-{number:05d}" if self.folder else None


@contextmanager
def unfinished(bench: Bench) -> Iterator[Unfinished]:
    """What is kept of the runs of this recipe: removed when it is done, left when it is cancelled, killed or fails.

    A second process with the same recipe keeps nothing. Raises Cancelled anew, with what was kept said.
    """
    folder = home() / "unfinished" / f"{bench.recipe.key()}-{bench.folder.revision[:12]}"
    with held(folder) as mine:
        kept = Unfinished(folder if mine else None)
        try:
            yield kept
        except Cancelled:
            if kept.folder and any(kept.folder.glob("block-*")):
                raise Cancelled("The run was cancelled; the layers it had finished are kept, and running it again goes on from there.") from None
            raise
        if mine:
            disk.remove(folder)


@contextmanager
def held(folder: Path) -> Iterator[bool]:
    """Whether the folder is this process's alone; false also where it cannot be made."""
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            fcntl.flock(stack.enter_context((folder / "lock").open("w")), fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = True
        except OSError:
            mine = False
        else:
            sweep(folder.parent, folder)
        yield mine


def sweep(parent: Path, mine: Path) -> None:
    """Forget all but the latest."""
    with suppress(OSError):
        others = sorted((path for path in parent.iterdir() if path != mine), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in others[MOST - 1 :]:
            disk.remove(path)
