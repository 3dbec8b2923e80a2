"""Checks of local paths: on a shared server, only those below one folder may be read.

`check_path` runs before any disk access on a path from a user's text, so that a refusal
does not reveal what exists outside the folder. Links are resolved first, so a link cannot lead out
of the folder.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import PlainError, value_text
from engine.runtime import settings


@dataclass(frozen=True)
class PathLimit:
    """Folders that a shared server may read. Sent to workers with each job."""

    folder: Path | None  # models and data of visitors; None: no local paths
    runs: Path  # runs/ID/model, compressed models of finished runs, is readable by all

    def allows(self, path: Path) -> bool:
        try:
            real = path.resolve()
        except (OSError, RuntimeError, ValueError):  # a loop of links, or a null byte in the name
            return False
        folders = (*_own, *([self.folder] if self.folder else []))
        if any(real.is_relative_to(folder) for folder in folders):
            return True
        return real.is_relative_to(self.runs) and (
            real.relative_to(self.runs).parts[1:2] == ("model",)
        )


_limit: ContextVar[PathLimit | None] = ContextVar("path_limit")
_own: set[Path] = set()  # working folders of this process


def path_limit() -> PathLimit | None:
    """Return the limit of the current job or of this process's environment; None if all paths are
    allowed.
    """
    try:
        return _limit.get()
    except LookupError:
        sharing = settings.sharing()
        return PathLimit(sharing.folder, (settings.home() / "runs").resolve()) if sharing else None


@contextmanager
def apply_path_limit(limit: PathLimit | None) -> Iterator[None]:
    """Apply a job's limit while it runs. With None, the limit of the environment applies."""
    token = _limit.set(limit) if limit else None
    try:
        yield
    finally:
        if token:
            _limit.reset(token)


@contextmanager
def allow_folder(folder: Path) -> Iterator[None]:
    """Allow a folder that this process writes and reads back, such as the model between two
    steps.
    """
    real = folder.resolve()
    _own.add(real)
    try:
        yield
    finally:
        _own.discard(real)


def check_path(path: Path) -> Path:
    """Return the path.

    Raises PlainError if it may not be read on this server.
    """
    limit = path_limit()
    if limit and not limit.allows(path):
        raise PlainError(f"{refusal_message(str(path), limit)}.")
    return path


def check_links(folder: Path) -> None:
    """Check the links in a model's folder.

    Raises PlainError if one leads to a place that may not be read.
    """
    limit = path_limit()
    if limit is None:
        return
    links = (path for path in folder.rglob("*") if path.is_symlink())
    if foreign_link := next((path for path in links if not limit.allows(path)), None):
        raise PlainError(
            f"The folder {value_text(str(folder))} contains the link "
            f"{value_text(foreign_link.name)}, which leads out of it; replace the link with the "
            "file."
        )


def check_sources(fields: dict[str, Any], limit: PathLimit | None) -> None:
    """Check the local paths in a recipe.

    Raises PlainError, with the key, for the first one that may not be read.
    """
    if limit is None:
        return
    for key, text in nested_texts(
        {name: value for name, value in fields.items() if name != "layers"}
    ):
        for source in text.split(","):  # task.also lists several
            if is_local_path(source) and not limit.allows(expanded_path(source)):
                raise PlainError(f"{key}: {refusal_message(source.strip(), limit)}.")


def is_local_path(text: str) -> bool:
    """Return True if the text can only be a local path, or names an existing file."""
    text = text.strip()
    if text.startswith(("/", "~", "\\", "./", "../")) or text in (".", ".."):
        return True
    try:
        return bool(text) and not text.startswith("bundled:") and Path(text).exists()
    except (OSError, ValueError):
        return False


def expanded_path(text: str) -> Path:
    try:
        return Path(text.strip()).expanduser()
    except RuntimeError:  # ~name of an unknown user
        return Path(text.strip())


def refusal_message(path: str, limit: PathLimit) -> str:
    if limit.folder is None:
        return (
            f"{value_text(path)} is a local path, which this shared server does not open; give "
            "bundled:NAME or a Hub id"
        )
    return (
        f"{value_text(path)} is outside {limit.folder}, the only folder this shared server opens; "
        "give a path below it, bundled:NAME or a Hub id"
    )


def nested_texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield every text in nested plain data with its key in the recipe, such as steps.0.student."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict | list | tuple):
        for name, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from nested_texts(part, f"{key}.{name}" if key else str(name))
