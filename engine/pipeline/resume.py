"""Finished blocks of a run, kept until it is complete, so that a canceled or killed run can
resume.
"""

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError

from engine.errors import Cancelled, PlainError
from engine.evaluation.calibration_batches import Batch
from engine.models.loaded_model import calibration_dtype, device_and_dtype
from engine.models.packed_folder import read_file, write_file
from engine.results.store import atomic_files, parquet
from engine.results.store.atomic_files import folder_draft
from engine.results.store.unfinished import (
    RESUMABLE_FILES,
    exclusive_folder,
    remove_oldest,
    unfinished_folder,
)
from engine.step.run_context import RunContext
from engine.step.table_builder import TableBuilder
from engine.tensors.weights import StoredWeight

DIGEST = "digest"  # digest of a stored block's other files, which detects damage
READ_ERRORS = (OSError, PlainError, SafetensorError, ValueError, KeyError, TypeError)


@dataclass(frozen=True)
class FinishedBlock:
    """One compressed block: its stored layers, the norms and biases that changed with them, and its
    table rows.
    """

    layers: dict[str, StoredWeight]
    plain: dict[str, torch.Tensor]
    tables: TableBuilder


@dataclass
class ResumeStore:
    """Finished blocks of one run, in order. If the disk cannot be written, the run continues
    without them.
    """

    folder: Path | None = None  # folder of the current step; None: blocks are not stored
    folders: list[Path] = field(default_factory=list)  # folders of all steps so far
    resumed_blocks: int = 0  # blocks that were loaded instead of computed
    lock: ExitStack = field(default_factory=ExitStack)

    def open_step(self, context: RunContext, batches: list[Batch]) -> None:
        """Store blocks of a step from now on, and load those of an earlier run. A second process
        with the same recipe stores nothing.
        """
        self.folder = self.claim_step_folder(context, batches)

    def claim_step_folder(self, context: RunContext, batches: list[Batch] = ()) -> Path | None:
        """Folder in which a step may store checkpoints."""
        folder = unfinished_folder(context.recipe.key(), resume_key(context, batches))
        if not self.lock.enter_context(exclusive_folder(folder)):
            return None
        self.folders.append(folder)
        remove_oldest(folder)
        return folder

    def load_block(self, number: int) -> FinishedBlock | None:
        """Stored result of a block; None if there is none or it is damaged."""
        path = self.path(number)
        if path is None or not path.is_dir():
            return None
        with suppress(*READ_ERRORS):
            if (path / DIGEST).read_text() != digest_of(path):
                return None
            layers, plain = read_file(path / "block.safetensors")
            return FinishedBlock(layers, plain, TableBuilder.of(parquet.load(path)))
        return None

    def save_block(self, number: int, done: FinishedBlock) -> None:
        """Write a block atomically."""
        path = self.path(number)
        if path is None:
            return
        with suppress(OSError, PlainError), folder_draft(path) as draft:
            write_file(draft / "block.safetensors", done.layers, done.plain)
            parquet.save(done.tables.tables(), draft)
            (draft / DIGEST).write_text(digest_of(draft))
            shutil.rmtree(path, ignore_errors=True)

    def path(self, number: int) -> Path | None:
        return self.folder / f"block-{number:05d}" if self.folder else None


def digest_of(block: Path) -> str:
    """Digest of all files of a stored block except the one that contains the digest."""
    digest = hashlib.sha256()
    for path in sorted(block.iterdir()):
        if path.name != DIGEST:
            digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


@contextmanager
def open_resume_store() -> Iterator[ResumeStore]:
    """Store of a run's finished blocks: removed when the run is done and measured, kept when it is
    canceled, killed or fails.

    Raises Cancelled again, with a message about what was kept.
    """
    store = ResumeStore()
    with store.lock:
        try:
            yield store
        except Cancelled:
            if any(
                next(folder.glob(name), None)
                for folder in store.folders
                for name in RESUMABLE_FILES
            ):
                raise Cancelled(
                    "The run was canceled. Finished layers are kept; run it again to resume."
                ) from None
            raise
        for folder in store.folders:
            atomic_files.remove(folder)


def resume_key(context: RunContext, batches: list[Batch]) -> str:
    """Digest of what affects the result besides the recipe: contents of model and data, device and
    data types.
    """
    data = hashlib.sha256()
    for batch in batches:
        for name, values in sorted(batch.items()):
            data.update(f"{name}{tuple(values.shape)}".encode() + values.numpy().tobytes())
    device, compute = device_and_dtype(context.recipe)
    precisions = "-".join(
        str(dtype).removeprefix("torch.") for dtype in (compute, calibration_dtype(context.recipe))
    )
    step = f"-{context.step}" if context.step else ""
    return (
        f"{context.folder.revision[:12]}{step}-{data.hexdigest()[:12]}-{device.type}-{precisions}"
    )
