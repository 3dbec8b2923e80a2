"""Labeled passages of the documentation corpus; the label is the library that a passage documents.
Library names, import aliases, links and version notes are masked, so that the label has to be
inferred from the content. Near-copies are removed before the split (see ``documents``), which is by
source file.
"""

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from engine.evaluation.data.documents import Document, Split, stable_hash

LABELS = (
    "numpy",
    "pandas",
    "scipy",
    "scikit-learn",
    "torch",
    "transformers",
    "plotly",
    "streamlit",
)
LIBRARY_LABEL = {name.replace("scikit-learn", "sklearn"): name for name in LABELS}
LONGEST = 480  # characters of a passage, about 110 tokens
MAX_PER_DOCUMENT = 4
MAX_PER_LABEL: dict[Split, int] = {
    "train": 2400,
    "unlabelled": 1200,
    "calibration": 160,
    "evaluation": 400,
}

GIVEAWAYS = re.compile(
    r"https?://\S+|\b(?:numpy|np|pandas|pd|scipy|sp|scikit[-_ "
    r"]?learn|sklearn|(?:py)?torch|transformers|hugging\s?face"
    r"|huggingface_hub|hf|plotly|px|go|streamlit|st)\b(?=[\W_])|\bversion(?:added|changed)\b.*|\b"
    r"\d+\.\d+(?:\.\d+)*\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Passage:
    text: str
    label: int  # index into LABELS
    split: Split


def mask_giveaways(text: str) -> str:
    return GIVEAWAYS.sub("lib", text)


def passages_in(text: str) -> Iterator[str]:
    """Passages of whole paragraphs, each at most LONGEST characters."""
    passage = ""
    for paragraph in re.split(r"\n\s*\n", text):
        if passage and len(passage) + len(paragraph) > LONGEST:
            yield passage
            passage = ""
        passage = f"{passage}\n\n{paragraph}".strip()[:LONGEST]
    if passage:
        yield passage


def labeled_passages(
    documents: Iterable[Document],
    per_document: int = MAX_PER_DOCUMENT,
    per_label: dict[Split, int] = MAX_PER_LABEL,
) -> list[Passage]:
    """Labeled passages without duplicates, limited per document and per label of a split by a
    stable hash.
    """
    pools: dict[tuple[Split, int], dict[int, Passage]] = defaultdict(dict)
    seen: set[int] = set()
    for document in documents:
        if document.library not in LIBRARY_LABEL:
            continue
        label = LABELS.index(LIBRARY_LABEL[document.library])
        for text in list(passages_in(mask_giveaways(document.text)))[:per_document]:
            key = stable_hash(re.sub(r"[\W\d_]+", "", text.lower()))
            if len(text) >= 120 and key not in seen:
                seen.add(key)
                pools[document.split, label][key] = Passage(text, label, document.split)
    chosen = [
        pool[key]
        for (split, _), pool in sorted(pools.items())
        for key in sorted(pool)[: per_label[split]]
    ]
    random.Random(0).shuffle(chosen)
    return chosen
