"""The documentation corpus: docstrings and documentation of installed Python packages.

They are read from the packages pinned in requirements.txt, so the corpus needs no network. Only its
held-out splits are copied into this repository (see ``held_out``). It is deduplicated, and split by
source file, so that no evaluated file was used for training.
"""

import hashlib
import importlib.util
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from inspect import cleandoc
from pathlib import Path
from typing import Literal

LIBRARIES = (
    "numpy",
    "pandas",
    "scipy",
    "sklearn",
    "torch",
    "transformers",
    "plotly",
    "streamlit",
    "datasets",
    "networkx",
    "sympy",
    "dask",
    "distributed",
)
DOCSTRING = re.compile(r'^[ \t]*[rRuU]?("""|\'\'\')(.*?)\1', re.DOTALL | re.MULTILINE)
SHORTEST = 80  # characters; shorter docstrings are labels rather than prose
NOT_WORDS = re.compile(r"[\W\d_]+")

Split = Literal["train", "unlabelled", "calibration", "evaluation"]
SPLITS: tuple[Split, ...] = ("train", "unlabelled", "calibration", "evaluation")


@dataclass(frozen=True)
class Document:
    library: str
    file: str  # path inside site-packages
    text: str

    @property
    def split(self) -> Split:
        """Split to which the document's source file belongs, by a hash of its path."""
        bucket = zlib.crc32(self.file.encode()) % 20
        return (
            "evaluation"
            if bucket == 0
            else "calibration"
            if bucket == 1
            else "unlabelled"
            if bucket < 6
            else "train"
        )


def source_files(library: str) -> list[Path]:
    """Sorted Python files of an installed package without tests. The package is not imported."""
    found = importlib.util.find_spec(library)
    if found is None or not found.submodule_search_locations:
        return []
    root = Path(found.submodule_search_locations[0])
    return sorted(path for path in root.rglob("*.py") if "tests" not in path.parts)


def docstrings(source: str) -> Iterator[str]:
    """Triple-quoted texts at the beginning of a line: docstrings, and the documentation that numpy
    and torch attach in calls.
    """
    for found in DOCSTRING.finditer(source):
        text = cleandoc(found[2]).strip()
        if len(text) >= SHORTEST:
            yield text


def extract_documents(
    libraries: tuple[str, ...] = LIBRARIES, report: Callable[[float], None] = lambda share: None
) -> Iterator[Document]:
    """Every documentation text of the installed libraries, in a stable order."""
    files = [(library, path) for library in libraries for path in source_files(library)]
    for done, (library, path) in enumerate(files):
        if done % 200 == 0:
            report(done / len(files))
        name = (
            "/".join(path.parts[path.parts.index("site-packages") + 1 :])
            if "site-packages" in path.parts
            else path.name
        )
        for text in docstrings(path.read_text("utf8", errors="ignore")):
            yield Document(library, name, text)


def unique_documents(documents: Iterator[Document]) -> Iterator[Document]:
    """Documents without near-copies. A document is dropped if more than half of its words are in
    lines that occurred before, ignoring digits and punctuation: generated classes differ in a name
    only.
    """
    seen: set[int] = set()
    for document in documents:
        lines = [
            line
            for raw in document.text.splitlines()
            if len(line := NOT_WORDS.sub("", raw.lower())) > 15
        ]
        keys = [stable_hash(line) for line in lines]
        repeated = sum(len(line) for line, key in zip(lines, keys, strict=True) if key in seen)
        seen.update(keys)
        if lines and repeated * 2 <= sum(map(len, lines)):
            yield document


def stable_hash(line: str) -> int:
    """64 bits that are equal for equal lines in every process (Python's own ``hash`` is salted)."""
    return int.from_bytes(hashlib.blake2b(line.encode(), digest_size=8).digest(), "little")


def fingerprint(texts: list[str]) -> str:
    """16 hex digits that change when any text changes."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode())
        digest.update(b"\0")
    return digest.hexdigest()[:16]
