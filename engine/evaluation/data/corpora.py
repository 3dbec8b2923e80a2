"""The bundled corpora as tables. Held-out splits are read from a file of the repository; training
splits are extracted once from the installed packages and cached as Parquet.
"""

import hashlib
from dataclasses import asdict
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pandas as pd

from engine.errors import PlainError
from engine.evaluation.data import documents, passages
from engine.evaluation.data.cache import data_folder, load_or_make
from engine.evaluation.data.documents import LIBRARIES, Document, Split
from engine.evaluation.data.held_out import (
    HELD_OUT_SPLITS,
    Corpus,
    held_out,
    held_out_digest,
    held_out_texts,
)
from engine.events import ProgressEvent, Report

# libraries whose distribution and import names differ
DISTRIBUTION = {"sklearn": "scikit-learn"}


@cache
def name_and_version(library: str) -> str:
    """Name and version of an installed library."""
    try:
        return f"{library} {version(DISTRIBUTION.get(library, library))}"
    except PackageNotFoundError:
        return f"{library} is missing"


def library_version(library: str) -> str:
    """Version of an installed library, without the build ("+cpu"). Raises PackageNotFoundError."""
    return version(DISTRIBUTION.get(library, library)).partition("+")[0]


def corpus_key() -> str:
    """16 hex digits of everything the corpora depend on: the held-out texts, versions of the
    libraries and the code that reads them.
    """
    code = [Path(module.__file__).read_bytes() for module in (documents, passages)]
    libraries = (name_and_version(library).encode() for library in LIBRARIES)
    return hashlib.sha256(b"\n".join([*libraries, held_out_digest().encode(), *code])).hexdigest()[
        :16
    ]


def extracted_file(name: Corpus) -> Path:
    """Cache file of a corpus."""
    return data_folder() / f"{name}-{corpus_key()}.parquet"


def needs_extraction(name: Corpus, split: Split) -> bool:
    """True if the split has to be extracted from the installed packages first."""
    return split not in HELD_OUT_SPLITS and not extracted_file(name).exists()


def corpus(name: Corpus, split: Split, report: Report) -> pd.DataFrame:
    """One split of the documents (library, file, text) or of the labeled passages (text, label),
    in a stable order.
    """
    if split in HELD_OUT_SPLITS:
        return held_out(name, split)
    make = all_documents if name == "docs" else all_passages
    rows = load_or_make(
        extracted_file(name),
        lambda path: pd.read_parquet(path, filters=[("split", "==", split)]),
        lambda: make(report),
        write_parquet,
    )
    # other versions of a library may have moved a held-out text to a file of this split
    is_held_out = rows["text"].isin(held_out_texts(name))
    return (
        rows[(rows["split"] == split) & ~is_held_out].drop(columns="split").reset_index(drop=True)
    )


def write_parquet(path: Path, rows: pd.DataFrame) -> None:
    rows.to_parquet(path, index=False, compression="zstd")


def all_documents(report: Report) -> pd.DataFrame:
    """Every document of every split. Takes some seconds."""

    def report_share(share: float) -> None:
        report(ProgressEvent("reading-documentation", int(100 * share), 100))

    found = [
        asdict(document) | {"split": document.split}
        for document in documents.unique_documents(documents.extract_documents(report=report_share))
    ]
    if not found:
        raise PlainError(
            "Texts for training come from installed packages and none was found; install "
            f"some of {', '.join(LIBRARIES)}."
        )
    return pd.DataFrame(found)


def all_passages(report: Report) -> pd.DataFrame:
    """Every labeled passage of every split, cut from the kept documents."""
    rows = load_or_make(
        extracted_file("docs"), pd.read_parquet, lambda: all_documents(report), write_parquet
    )
    report(ProgressEvent("cutting-passages", 0, 1))
    texts = (
        Document(library, file, text)
        for library, file, text in zip(rows.library, rows.file, rows.text, strict=True)
    )
    return pd.DataFrame([asdict(passage) for passage in passages.labeled_passages(texts)])
