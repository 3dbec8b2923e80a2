"""Checkpoints of a training on disk: a killed training resumes with an equal result."""

import pickle
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from zipfile import BadZipFile

import torch

from engine.results.schema.tables import CurveRow
from engine.results.store.atomic_files import file_draft

State = dict[str, torch.Tensor]
READ_ERRORS = (
    OSError,
    RuntimeError,
    ValueError,
    KeyError,
    TypeError,
    EOFError,
    BadZipFile,
    pickle.UnpicklingError,
)


@dataclass(frozen=True, kw_only=True)
class SavedState:
    """Tensors and plain data from which a training resumes, and the rows of its curve so far."""

    row: ClassVar[type] = CurveRow
    rows: list[Any]


SavedStateT = TypeVar("SavedStateT", bound=SavedState)


@dataclass(frozen=True, kw_only=True)
class Checkpoint(SavedState):
    step: int  # done
    model: State  # state of the training
    optimizer: dict[str, Any]
    best_step: int
    best: State
    beside: State = field(default_factory=dict)  # state of a model trained with it, if any
    beside_optimizer: dict[str, Any] = field(default_factory=dict)


def checkpoint_file(folder: Path | None, phase: str) -> Path | None:
    """Checkpoint file of one training of a step; None if nothing is kept."""
    return folder and folder / f"training-{phase.replace(' ', '-')}.pt"


def write_checkpoint(state: SavedState, file: Path | None) -> None:
    """Write a checkpoint atomically. If the disk cannot be written, the training continues without
    one.
    """
    if file is None:
        return
    plain = {field.name: getattr(state, field.name) for field in fields(state)} | {
        "rows": [asdict(row) for row in state.rows]
    }
    with suppress(OSError, RuntimeError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with file_draft(file) as draft:
            torch.save(plain, draft)


def read_checkpoint(
    kind: type[SavedStateT], file: Path | None, device: torch.device
) -> SavedStateT | None:
    """State of a checkpoint; None if there is none, or it is damaged or of another kind. Only
    tensors and plain data are read, never code.
    """
    if file is None or not file.is_file():
        return None
    with suppress(*READ_ERRORS):
        plain = torch.load(file, map_location=device, weights_only=True)
        return kind(**plain | {"rows": [kind.row(**row) for row in plain["rows"]]})
    return None


def resumed_note(done: int, of: int, unit: str = "training steps were done") -> str:
    """Note about a resumed training."""
    return (
        f"{done} of its {of} {unit} by an earlier run that was stopped; this run resumed from "
        "there."
    )
