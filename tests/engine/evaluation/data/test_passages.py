"""Labeled passages of documentation."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.evaluation.data.documents import Document
from engine.evaluation.data.passages import (
    LABELS,
    LONGEST,
    labeled_passages,
    mask_giveaways,
    passages_in,
)

paragraphs = st.lists(
    st.text(st.characters(categories=["L", "Zs"]), min_size=1, max_size=300).filter(
        lambda text: text.strip()
    ),
    min_size=1,
    max_size=8,
)


@given(paragraphs)
def test_passages_are_whole_paragraphs_in_order_and_none_is_too_long(parts):
    passages = list(passages_in("\n\n".join(parts)))
    assert passages and all(0 < len(passage) <= LONGEST for passage in passages)
    joined = "".join("".join(passages).split())
    assert joined == "".join("".join(parts).split())


@pytest.mark.parametrize(
    "name", ["numpy.sum", "np.sum", "scikit-learn ", "PyTorch,", "https://a.b/c", "1.2.3", "pd."]
)
def test_what_names_the_library_is_masked(name):
    assert name.strip(".,").split(".")[0].lower() not in mask_giveaways(f"See {name} x").lower()


def test_words_that_only_contain_a_name_stay():
    text = "The torchlight of a species, spelled plainly."
    assert mask_giveaways(text) == text


def document(number: int, library: str = "numpy", file: str = "a.py") -> Document:
    words = " ".join(f"word{chr(97 + number)}{chr(97 + place)}" for place in range(20))
    return Document(library, file, f"{words}\n\n{words}")


def test_labels_are_those_of_the_libraries_and_texts_occur_once():
    documents = [document(0), document(1, "sklearn"), document(0, "pandas"), document(2, "dask")]
    passages = labeled_passages(documents)
    assert sorted(LABELS[each.label] for each in passages) == ["numpy", "scikit-learn"]
    assert len({each.text for each in passages}) == len(passages)


def test_no_label_has_more_than_its_share_of_a_split_and_draws_repeat():
    documents = [document(number) for number in range(20)]
    split = documents[0].split
    chosen = labeled_passages(documents, per_label={split: 5})
    assert len(chosen) == 5 and chosen == labeled_passages(documents, per_label={split: 5})
    assert chosen == labeled_passages(documents[::-1], per_label={split: 5}), "by hash, not order"
