"""The held-out texts of the bundled corpora, read from a file in ``assets/data``.

Published numbers rest on these texts, so updating a package must not change them. The file is
written by ``python -m engine.bundled.held_out``.
"""

import hashlib
import json
import lzma
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from engine.errors import PlainError
from engine.evaluation.data.documents import Split
from engine.recipe.model_names import ASSETS

Corpus = Literal["docs", "libraries"]
HELD_OUT_SPLITS: tuple[Split, ...] = ("calibration", "evaluation")
HELD_OUT_FILE = ASSETS / "data" / "held-out.jsonl.xz"
COLUMNS: dict[Corpus, list[str]] = {
    "docs": ["library", "file", "text"],
    "libraries": ["text", "label"],
}


def held_out(name: Corpus, split: Split) -> pd.DataFrame:
    """One held-out split of the documents (library, file, text) or of the labeled passages (text,
    label), in a stable order.
    """
    rows = [row for row in lines_of(HELD_OUT_FILE)[1:] if row["corpus"] == name]
    return pd.DataFrame(
        [row for row in rows if row["split"] == split], columns=COLUMNS[name]
    ).reset_index(drop=True)


def held_out_texts(name: Corpus) -> set[str]:
    """Every text of both held-out splits."""
    return {row["text"] for row in lines_of(HELD_OUT_FILE)[1:] if row["corpus"] == name}


def source_versions() -> dict[str, str]:
    """Version of each library when its texts were extracted."""
    return lines_of(HELD_OUT_FILE)[0]["versions"]


@cache
def held_out_digest() -> str:
    """64 hex digits that change with the file."""
    return hashlib.sha256(content_of(HELD_OUT_FILE)).hexdigest()


@cache
def lines_of(path: Path) -> list[dict[str, Any]]:
    """The header, then one row for each text. Raises PlainError if the file is missing or
    damaged.
    """
    content = content_of(path)
    try:
        return [json.loads(line) for line in lzma.decompress(content).splitlines()]
    except (lzma.LZMAError, ValueError):
        raise PlainError(f"{path} is damaged; fetch the repository's assets again.") from None


def content_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PlainError(
            f"The bundled texts cannot be read from {path} ({error.strerror}); fetch the "
            "repository's assets again."
        ) from None


def write_held_out(path: Path, versions: dict[str, str], rows: dict[Corpus, pd.DataFrame]) -> None:
    """Write the held-out ``rows`` of each corpus, which have a column ``split``."""
    lines: list[dict[str, Any]] = [{"versions": versions}]
    for name, frame in rows.items():
        held_out_rows = frame[frame["split"].isin(HELD_OUT_SPLITS)]
        for row in held_out_rows[["split", *COLUMNS[name]]].to_dict("records"):
            lines.append({"corpus": name, **row})
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    path.write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))
