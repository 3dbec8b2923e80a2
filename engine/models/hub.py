"""Download of a model from the Hugging Face Hub into its cache: weights as safetensors and small
config and tokenizer files, never code.
"""

import errno
import time
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import errors, snapshot_download
from tqdm import tqdm

from engine.errors import PlainError
from engine.events import DownloadEvent, Report
from engine.recipe.model_names import ModelName

WANTED = ("*.safetensors", "*.json", "*.txt", "*.model")
# other formats, and second copies of the same weights
UNWANTED = ("*/*", "consolidated*", "*.fp16.*", "*.bf16.*")
LOGIN = "log in with `hf auth login` or set HF_TOKEN"


def download_model(name: ModelName, report: Report) -> Path:
    """Folder of the snapshot, downloaded if it is not cached. HF_ENDPOINT, HF_HOME and
    HF_HUB_OFFLINE have their usual effect.
    """
    bar = progress_bar_class(name.name[:120], report)
    try:
        return Path(
            snapshot_download(
                name.name,
                revision=name.revision,
                allow_patterns=WANTED,
                ignore_patterns=UNWANTED,
                tqdm_class=bar,
            )
        )
    except (errors.HFValidationError, httpx2.HTTPError, OSError) as error:
        raise PlainError(download_error_message(error, name)) from None


def progress_bar_class(name: str, report: Report) -> type[tqdm]:
    """Progress bar that draws nothing and reports progress a few times per second."""

    class Bar(tqdm):
        # disabled: tqdm draws while it holds a lock, which it does not release if a report raises
        # raises to stop the run
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "disable": True})
            self.bytes, self.due = kwargs.get("unit") == "B", 0.0

        def update(self, n: float | None = 1) -> None:
            self.n += n or 0
            if self.bytes and self.n and self.total and time.monotonic() >= self.due:
                self.due = time.monotonic() + 0.3
                done, total = int(min(self.n, self.total)), int(self.total)
                report(DownloadEvent("downloading", done, total, model=name))

    return Bar


def download_error_message(error: Exception, name: ModelName) -> str:
    """Explain a download error and what to do about it."""
    model = repr(name.name[:120])
    match error:
        case errors.HFValidationError():
            return (
                f"{model} is neither a directory nor a Hub id; a Hub id looks like "
                "HuggingFaceTB/SmolLM2-135M."
            )
        case errors.GatedRepoError():
            return (
                f"{model} is gated: accept its conditions on its Hub page, then {LOGIN} and try "
                "again."
            )
        case errors.RepositoryNotFoundError():
            return (
                f"The Hub shows no model {model}; check its spelling, and if it is private, "
                f"{LOGIN}."
            )
        case errors.RevisionNotFoundError():
            return (
                f"{model} has no revision {(name.revision or 'main')[:120]!r}; name a branch, "
                "tag or commit from its Hub page."
            )
        case errors.LocalEntryNotFoundError():
            return unreachable_message(error, model)
        case errors.HfHubHTTPError():
            return (
                f"The Hub refused to send {model} (status {error.response.status_code}); try "
                f"again later, or {LOGIN}."
            )
        case OSError(errno=errno.ENOSPC):
            return (
                f"The disk is full, so {model} cannot be downloaded; free some space or move the "
                "cache with HF_HOME."
            )
        case _:
            return f"The download of {model} was interrupted; try again, downloaded files are kept."


def unreachable_message(error: errors.LocalEntryNotFoundError, model: str) -> str:
    """The model is not in the cache, and the Hub did not respond."""
    lacking = (
        "only partly in the cache"
        if isinstance(error, errors.IncompleteSnapshotError)
        else "not in the cache"
    )
    match error.__cause__:
        case errors.OfflineModeIsEnabled():
            return (
                f"{model} is {lacking} and HF_HUB_OFFLINE forbids downloading it; unset that, or "
                "give a directory."
            )
        case errors.HfHubHTTPError() as answer:
            return (
                f"{model} is {lacking} and the Hub failed (status "
                f"{answer.response.status_code}); try again later."
            )
        case _:
            return (
                f"{model} is {lacking} and the Hub cannot be reached; check the network and "
                "HF_ENDPOINT, or give a directory."
            )
