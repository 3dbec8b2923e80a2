"""Settings of the app from environment variables.

Variables are read when they are needed; changes take effect at the next start at the latest.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path

HOME = "COMPRESSION_EXPLORER_HOME"
MEMORY = "COMPRESSION_EXPLORER_MEMORY"
QUESTION_MEMORY = "COMPRESSION_EXPLORER_QUESTION_MEMORY"
HOSTS = "COMPRESSION_EXPLORER_HOSTS"
EARLIER_HOME = "~/.cache/compression-explorer"
SCHEDULER = "DASK_SCHEDULER_ADDRESS"
SHARED = "COMPRESSION_EXPLORER_SHARED"
SHARED_FOLDER = "COMPRESSION_EXPLORER_SHARED_FOLDER"
SHARED_RUNS = "COMPRESSION_EXPLORER_SHARED_RUNS"
SHARED_QUEUE = "COMPRESSION_EXPLORER_SHARED_QUEUE"
SHARED_SECONDS = "COMPRESSION_EXPLORER_SHARED_SECONDS"

ON, OFF = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")


@dataclass(frozen=True)
class Sharing:
    """Limits of a shared server, such as for a class or a public demo."""

    folder: Path | None = None  # for local models and data; None: no local paths are allowed
    runs: int = 2  # waiting or running, per visitor
    queue: int = 20  # waiting or running, for all visitors
    seconds: int = 1800  # per run, from its start


def home() -> Path:
    """Folder of results and caches: $COMPRESSION_EXPLORER_HOME, or one in the user's cache.

    Earlier versions used ~/.cache/compression-explorer on every system; if it exists, it stays in
    use.
    """
    if chosen := os.environ.get(HOME):
        return Path(chosen).expanduser()
    earlier = Path(EARLIER_HOME).expanduser()
    return earlier if earlier.is_dir() else user_cache_path("compression-explorer", False)


def memory(variable: str = MEMORY) -> str:
    """Memory limit of a worker as given, such as "8GB"; empty if not set."""
    return os.environ.get(variable, "")


def scheduler() -> str:
    """Address of an existing Dask cluster; empty for the embedded one."""
    return os.environ.get(SCHEDULER, "")


def hosts() -> tuple[str, ...]:
    """Names under which a reverse proxy serves the app, such as "app.example.com"."""
    names = os.environ.get(HOSTS, "").split(",")
    return tuple(name.strip().lower() for name in names if name.strip())


def sharing(environment: Mapping[str, str] | None = None) -> Sharing | None:
    """Return the limits for shared use, or None if the server is not shared.

    Raises PlainError for an invalid value, so that a typing error does not remove a limit.
    """
    variables = os.environ if environment is None else environment
    if not is_switched_on(variables.get(SHARED, "")):
        return None
    numbers = {
        name: whole_number(variables, variable)
        for name, variable in COUNT_VARIABLES.items()
        if variables.get(variable)
    }
    return Sharing(folder=shared_folder(variables.get(SHARED_FOLDER, "")), **numbers)


COUNT_VARIABLES = {"runs": SHARED_RUNS, "queue": SHARED_QUEUE, "seconds": SHARED_SECONDS}


def is_switched_on(value: str) -> bool:
    word = value.strip().lower()
    if word not in (*ON, *OFF):
        raise setting_error(
            f"{SHARED} is {value[:40]!r}; set it to 1 for shared use, or to 0 (or unset it) "
            "otherwise."
        )
    return word in ON


def whole_number(variables: Mapping[str, str], name: str) -> int:
    text = variables[name].strip()
    if not (text.isascii() and text.isdigit() and 0 < int(text[:18]) <= 10**9):
        raise setting_error(
            f"{name} is {text[:40]!r}; set it to a whole number of at least 1, or unset it."
        )
    return int(text)


def shared_folder(text: str) -> Path | None:
    if not text.strip():
        return None
    try:
        return Path(text).expanduser().resolve(strict=True)
    except (OSError, RuntimeError):
        raise setting_error(
            f"{SHARED_FOLDER} is {text[:120]!r}, which does not exist; give an existing "
            "folder, or unset it."
        ) from None


def setting_error(sentence: str) -> ValueError:
    from engine.errors import PlainError  # imports pydantic, which would delay the start by 0.25 s

    return PlainError(sentence)
