"""The real corpora: training splits are extracted once for all of these tests."""

import pandas as pd
import pytest

from engine.errors import PlainError
from engine.evaluation.data import corpora
from engine.evaluation.data import held_out as held_out_module
from engine.evaluation.data.corpora import corpus, corpus_key, library_version
from engine.evaluation.data.documents import LIBRARIES, SPLITS, fingerprint
from engine.evaluation.data.examples import is_available, load_examples, load_text
from engine.evaluation.data.held_out import HELD_OUT_SPLITS, held_out, source_versions
from engine.evaluation.progress import ignore_progress
from engine.recipe.model_names import ASSETS
from engine.recipe.tasks import TextClassification


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMPRESSION_EXPLORER_HOME", str(folder))
        yield folder / "data"


@pytest.fixture(scope="module")
def first(home):
    """Training documents of the first reading, and the progress reported meanwhile."""
    reported = []
    return corpus("docs", "train", reported.append), reported


def test_the_first_reading_reports_progress(first):
    assert [event.done for event in first[1]] == sorted(event.done for event in first[1])
    assert len(first[1]) > 5


def test_the_second_reading_is_the_same_and_reports_nothing(first):
    reported = []
    again = corpus("docs", "train", reported.append)
    pd.testing.assert_frame_equal(again, first[0])
    assert reported == []


def test_held_out_texts_are_read_without_extraction(tmp_path, monkeypatch):
    monkeypatch.setenv("COMPRESSION_EXPLORER_HOME", str(tmp_path))
    for name in ("all_documents", "all_passages"):
        monkeypatch.setattr(corpora, name, lambda report: pytest.fail("extracted"))
    assert is_available("bundled:docs-libraries", "test")
    assert not is_available("bundled:docs-libraries", "train")
    for split in ("test", "calibration"):
        assert len(load_text("bundled:docs", split=split).texts) > 1500
    for split in ("test", "validation"):
        assert len(load_examples(TextClassification(split=split, samples=10**6)).inputs) > 1000


def test_published_numbers_rest_on_the_held_out_file():
    """The fingerprint that the card of docs-classifier names."""
    card = (ASSETS / "models" / "docs-classifier" / "README.md").read_text()
    assert (
        f"`{fingerprint(list(corpus('libraries', 'evaluation', ignore_progress)['text']))}`" in card
    )


def test_the_versions_it_was_trained_on_give_the_held_out_file(first, home):
    installed = {library: library_version(library) for library in LIBRARIES}
    if installed != source_versions():
        pytest.skip(f"other versions are installed: {installed}")
    corpus("libraries", "train", ignore_progress)
    for name in ("docs", "libraries"):
        extracted = pd.read_parquet(corpora.extracted_file(name))
        for split in HELD_OUT_SPLITS:
            rows = extracted[extracted["split"] == split].drop(columns="split")
            pd.testing.assert_frame_equal(held_out(name, split), rows.reset_index(drop=True))


def test_a_held_out_text_that_moved_to_another_file_is_not_trained_on(tmp_path, monkeypatch):
    monkeypatch.setenv("COMPRESSION_EXPLORER_HOME", str(tmp_path))
    moved = held_out("docs", "evaluation").assign(split="train")
    new = moved.iloc[:1].assign(text="A text of a newer version.")
    monkeypatch.setattr(corpora, "all_documents", lambda report: pd.concat([moved, new]))
    assert list(corpus("docs", "train", ignore_progress)["text"]) == ["A text of a newer version."]


def test_a_missing_or_damaged_held_out_file_is_one_sentence(tmp_path, monkeypatch):
    path = tmp_path / "held-out.jsonl.xz"
    monkeypatch.setattr(held_out_module, "HELD_OUT_FILE", path)
    with pytest.raises(PlainError, match="cannot be read from .* fetch the repository's assets"):
        corpus("docs", "evaluation", ignore_progress)
    path.write_bytes(b"damaged")
    with pytest.raises(PlainError, match="is damaged; fetch the repository's assets"):
        corpus("docs", "evaluation", ignore_progress)


def test_a_new_version_of_a_library_makes_a_new_corpus(monkeypatch):
    before = corpus_key()
    monkeypatch.setattr(corpora, "name_and_version", lambda library: f"{library} 0.0.0")
    assert corpus_key() != before


def test_splits_share_no_file_and_no_text(first):
    frames = {split: corpus("docs", split, ignore_progress) for split in SPLITS}
    files = pd.concat([frame[["file"]].drop_duplicates() for frame in frames.values()])
    assert not files["file"].duplicated().any()
    assert not set(frames["evaluation"]["text"]) & set(frames["train"]["text"])


def test_calibration_and_evaluation_share_no_text():
    calibration, evaluation = (load_text("bundled:docs", split=s).texts for s in ("train", "test"))
    assert not set(calibration) & set(evaluation)


def test_training_splits_of_the_bundled_model_are_not_offered(first):
    trained = set(first[0]["text"])
    for split in ("train", "test"):
        assert not trained & set(load_text("bundled:docs", split=split).texts)
    with pytest.raises(PlainError, match="'unlabelled'; its splits are test, train, calibration"):
        load_text("bundled:docs", split="unlabelled")


def test_the_first_texts_come_from_many_libraries():
    library = corpus("docs", "evaluation", ignore_progress).set_index("text")["library"].to_dict()
    assert len({library[text] for text in load_text("bundled:docs").texts[:100]}) >= 8


def test_labelled_splits_share_no_passage(first):
    splits = [
        load_examples(TextClassification(split=split, samples=10**6))
        for split in ("test", "validation", "train")
    ]
    passages = [set(examples.inputs) for examples in splits]
    assert sum(map(len, passages)) == len(set.union(*passages))
    assert all(len(examples.names) == 8 for examples in splits)


def test_a_damaged_cache_is_rebuilt(first, home, monkeypatch):
    kept = home / f"docs-{corpus_key()}.parquet"
    whole = kept.read_bytes()
    documents = pd.read_parquet(kept)
    kept.write_bytes(whole[: len(whole) // 2])
    monkeypatch.setattr(corpora, "all_documents", lambda report: documents)
    pd.testing.assert_frame_equal(corpus("docs", "train", ignore_progress), first[0])
    assert len(kept.read_bytes()) == len(whole)
