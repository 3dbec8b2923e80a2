"""Every way in which people's data can be wrong is one sentence."""

import datasets
import pytest

from engine.evaluation.data import sources
from engine.evaluation.data.examples import load_examples, load_text
from engine.recipe.tasks import ImageClassification, TextClassification
from tests.cases import for_each
from tests.data_files import ROWS, assert_refused, save_rows


@for_each("name", ["a.csv", "a.json", "a.jsonl", "a.parquet"])
def test_every_kind_of_file_gives_the_same_texts_and_labels(tmp_path, name):
    source = save_rows(tmp_path, name)
    assert load_text(source).texts == ROWS["text"]
    examples = load_examples(TextClassification(data=source))
    assert (examples.inputs, examples.labels) == (ROWS["text"], ROWS["label"])


@for_each("name", ["a.csv", "a.json", "a.jsonl", "a.parquet"])
def test_nothing_becomes_a_date(tmp_path, name):
    assert load_text(save_rows(tmp_path, name, {"date": ["2024-01-01"]}), "date").texts == [
        "2024-01-01"
    ]


def test_json_with_one_object_a_line_is_read_whatever_its_ending(tmp_path):
    (tmp_path / "a.json").write_text('{"text": "one"}\n{"text": "two"}\n')
    assert load_text(str(tmp_path / "a.json")).texts == ["one", "two"]


def test_a_text_file_is_one_text_as_it_is(tmp_path):
    (tmp_path / "a.txt").write_bytes("  é\r\n\n\n\nb \n".encode())
    assert load_text(str(tmp_path / "a.txt")).texts == ["  é\r\n\n\n\nb \n"]


def test_no_more_of_a_column_is_read_than_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MAX_CHARACTERS", 5000)
    assert len(load_text(save_rows(tmp_path, "a.csv", {"text": ["word"] * 5000})).texts) == 2000


@for_each(
    ("name", "content", "words"),
    [
        ("a.txt", b"", ["a.txt is empty"]),
        ("a.txt", b" \n ", ["only white space"]),
        ("a.txt", b"\xff\x80\x81\x8d", ["not UTF-8"]),
        ("a.csv", b"", ["a.csv is empty"]),
        ("a.csv", b"text\n", ["no rows"]),
        ("a.csv", b'text\n"open', ["cannot be read as csv"]),
        ("a.csv", b"words\nx\n", ["no column 'text'", "words", "text_column"]),
        ("a.csv", b"text\n1\n", ["holds 1 instead of text"]),
        ("a.csv", b"text,other\n,1\n", ["holds no text"]),
        ("a.json", b"{", ["cannot be read as json"]),
        ("a.json", b"[1, 2]", ["row 1 is not an object"]),
        ("a.json", b"7", ["a.json"]),
        ("a.json", rb'[{"text": "\ud800"}]', ["a.json"]),
        ("a.jsonl", b'{"text": "x"}\n{', ["cannot be read as jsonl"]),
        ("a.parquet", b"PAR1", ["cannot be read as parquet"]),
        ("a.docx", b"x", ["a .docx file", ".parquet"]),
    ],
)
def test_every_broken_file_is_one_sentence(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    assert_refused(lambda: load_text(str(tmp_path / name)), *words)


@for_each(
    "source", ["missing.txt", "/nowhere/a.csv", "~nobody/a.csv", "a\0b.csv", "x" * 5000 + ".csv"]
)
def test_a_missing_file_is_one_sentence(source):
    assert_refused(lambda: load_text(source), "There is no file", "give bundled:NAME")


def test_a_folder_is_no_data(tmp_path):
    assert_refused(lambda: load_text(str(tmp_path)), "is a folder")


@for_each("source", ["two words", "a/b/c", "https://x.org", "ü"])
def test_an_unknown_name_gives_one_sentence(source):
    assert_refused(lambda: load_text(source), "names no data")


@pytest.mark.parametrize("source", ["bundled:nothing", "bundled:digits"])
def test_a_bundled_text_there_is_not_names_those_there_are(source):
    assert_refused(lambda: load_text(source), "bundled:docs and bundled:docs-libraries")
    assert_refused(
        lambda: load_examples(TextClassification(data="bundled:docs")), "bundled:docs-libraries"
    )
    assert_refused(
        lambda: load_examples(ImageClassification(data="bundled:docs")), "bundled:digits"
    )


def test_columns_of_labelled_data_are_listed_where_one_is_missing(tmp_path):
    source = save_rows(tmp_path, "a.csv")
    assert_refused(
        lambda: load_examples(TextClassification(data=source, label_column="class")),
        "text, label",
        "label_column",
    )
    assert_refused(
        lambda: load_examples(ImageClassification(data=source)), "text, label", "image_column"
    )


# --- Hub datasets, without a network --------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch):
    """Sets what ``load_dataset`` gives or raises; returns what it was asked for."""
    asked = []

    def answering(answer):
        def load_dataset(name, config=None, **options):
            asked.append((name, config, options["split"], options["revision"]))
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        return asked

    return answering


def test_a_hub_dataset_is_named_with_configuration_and_revision(hub):
    asked = hub(datasets.Dataset.from_dict({"text": ["a", "", "b"]}))
    text = load_text("Salesforce/wikitext:wikitext-2-raw-v1@main", split="validation")
    assert asked == [("Salesforce/wikitext", "wikitext-2-raw-v1", "validation", "main")]
    assert (text.texts, text.separator) == (["a", "b"], "\n\n")


def test_class_names_of_a_hub_dataset_are_kept(hub):
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["spam", "ham"])}
    )
    hub(datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features))
    examples = load_examples(TextClassification(data="someone/mail"))
    assert (examples.names, examples.labels, examples.numbered) == (("spam", "ham"), [1, 0], True)


@for_each(
    ("error", "words"),
    [
        (
            datasets.exceptions.DatasetNotFoundError("Dataset 'x/y' doesn't exist on the Hub"),
            ["x/y", "none of that name"],
        ),
        (
            ConnectionError("Couldn't reach 'x/y' on the Hub (LocalEntryNotFoundError)"),
            ["cannot be reached"],
        ),
        (
            ValueError("Config name is missing.\nPlease pick one among: ['small', 'large']"),
            ["small, large", "x/y:CONFIG"],
        ),
        (
            ValueError("Unknown split \"test\". Should be one of ['train']."),
            ["Should be one of ['train']"],
        ),
        (
            RuntimeError("Dataset scripts are no longer supported\nmore"),
            ["scripts are no longer supported"],
        ),
    ],
)
def test_a_dataset_that_cannot_be_had_is_one_sentence(hub, error, words):
    hub(error)
    assert_refused(lambda: load_text("x/y"), *words)


def test_an_empty_split_is_one_sentence(hub):
    hub(datasets.Dataset.from_dict({"text": []}))
    assert_refused(lambda: load_text("x/y"), "test split of x/y is empty")
