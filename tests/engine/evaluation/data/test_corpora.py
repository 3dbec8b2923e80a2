"""The real corpora, extracted once for all of these tests."""

import time

import pandas as pd
import pytest

from engine.errors import PlainError
from engine.evaluation.data import corpora
from engine.evaluation.data.corpora import corpus, corpus_key
from engine.evaluation.data.documents import SPLITS
from engine.evaluation.data.examples import examples_of, text_of
from engine.evaluation.progress import silent
from engine.recipe.tasks import TextClassification


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMPRESSION_EXPLORER_HOME", str(folder))
        yield folder / "data"


@pytest.fixture(scope="module")
def first(home):
    """The evaluation texts of the first reading, and what was reported meanwhile."""
    reported = []
    return text_of("bundled:docs", report=reported.append), reported


def test_the_first_reading_reports_progress(first):
    assert [event.done for event in first[1]] == sorted(event.done for event in first[1])
    assert len(first[1]) > 5


def test_the_second_reading_is_the_same_and_instantaneous(first):
    reported = []
    began = time.process_time()
    again = text_of("bundled:docs", report=reported.append)
    assert time.process_time() - began < 0.3
    assert again == first[0]
    assert reported == []


def test_a_new_version_of_a_library_makes_a_new_corpus(monkeypatch):
    before = corpus_key()
    monkeypatch.setattr(corpora, "installed", lambda library: f"{library} 0.0.0")
    assert corpus_key() != before


def test_splits_share_no_file_and_no_text(first):
    frames = {split: corpus("docs", split, silent) for split in SPLITS}
    files = pd.concat([frame[["file"]].drop_duplicates() for frame in frames.values()])
    assert not files["file"].duplicated().any()
    assert not set(frames["evaluation"]["text"]) & set(frames["train"]["text"])


def test_calibration_and_evaluation_share_no_text(first):
    assert not set(text_of("bundled:docs", split="train").texts) & set(first[0].texts)


def test_what_the_model_was_trained_on_is_not_on_offer(first):
    trained = set(corpus("docs", "train", silent)["text"])
    assert not trained & {*first[0].texts, *text_of("bundled:docs", split="train").texts}
    with pytest.raises(PlainError, match="'unlabelled'; its splits are test, train, calibration"):
        text_of("bundled:docs", split="unlabelled")


def test_the_first_texts_come_from_many_libraries(first):
    library = corpus("docs", "evaluation", silent).set_index("text")["library"].to_dict()
    assert len({library[text] for text in first[0].texts[:100]}) >= 8


def test_labelled_splits_share_no_passage(first):
    splits = [
        examples_of(TextClassification(split=split, samples=10**6))
        for split in ("test", "validation", "train")
    ]
    passages = [set(examples.inputs) for examples in splits]
    assert sum(map(len, passages)) == len(set.union(*passages))
    assert all(len(examples.names) == 8 for examples in splits)


def test_a_damaged_cache_is_made_anew(first, home, monkeypatch):
    kept = home / f"docs-{corpus_key()}.parquet"
    whole = kept.read_bytes()
    documents = pd.read_parquet(kept)
    kept.write_bytes(whole[: len(whole) // 2])
    monkeypatch.setattr(corpora, "all_documents", lambda report: documents)
    assert text_of("bundled:docs") == first[0]
    assert len(kept.read_bytes()) == len(whole)
