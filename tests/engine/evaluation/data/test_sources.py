"""Every way in which people's data can be wrong is one sentence."""

import io
import json
import os

import datasets
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from engine.errors import PlainError
from engine.evaluation.data import examples as data
from engine.evaluation.data import sources
from engine.evaluation.data.examples import cell_image, images_in, load_examples, load_text
from engine.recipe.tasks import ImageClassification, TextClassification
from tests.cases import for_each

ROWS = {"text": ["NA", "null", "some words", "2024-01-01"], "label": [0, 1, 1, 0]}


def save_rows(folder, name, rows=ROWS):
    path, frame = folder / name, pd.DataFrame(rows)
    match path.suffix:
        case ".csv":
            frame.to_csv(path, index=False)
        case ".parquet":
            frame.to_parquet(path)
        case _:
            frame.to_json(path, orient="records", lines=path.suffix == ".jsonl")
    return str(path)


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


def test_a_fingerprint_follows_the_text_and_not_the_name(tmp_path):
    for name, text in (("a.txt", "x y"), ("b.txt", "x y"), ("c.txt", "x z")):
        (tmp_path / name).write_text(text)
    a, b, c = (load_text(str(tmp_path / name)).fingerprint for name in ("a.txt", "b.txt", "c.txt"))
    assert a == b != c


def test_a_fingerprint_follows_the_labels(tmp_path):
    one, other = (
        save_rows(tmp_path, "a.csv"),
        save_rows(tmp_path, "b.csv", ROWS | {"label": [0, 1, 1, 1]}),
    )
    assert (
        load_examples(TextClassification(data=one)).fingerprint
        != load_examples(TextClassification(data=other)).fingerprint
    )


def test_no_more_of_a_column_is_read_than_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MAX_CHARACTERS", 5000)
    assert len(load_text(save_rows(tmp_path, "a.csv", {"text": ["word"] * 5000})).texts) == 2000


def test_a_file_sorted_by_label_loses_no_class(tmp_path):
    source = save_rows(tmp_path, "a.csv", {"text": ["x"] * 300, "label": sorted([0, 1, 2] * 100)})
    assert set(load_examples(TextClassification(data=source, samples=50)).labels) == {0, 1, 2}


def test_what_is_skipped_is_what_was_drawn_before(tmp_path):
    texts = [f"text {i}" for i in range(100)]
    task = TextClassification(
        data=save_rows(tmp_path, "a.csv", {"text": texts, "label": [0] * 100}), samples=60
    )
    first, rest = load_examples(task).inputs, load_examples(task, skip=60).inputs
    assert not set(first) & set(rest)
    assert sorted(first + rest) == sorted(texts)


def test_named_labels_are_numbered_in_the_alphabet(tmp_path):
    examples = load_examples(
        TextClassification(
            data=save_rows(tmp_path, "a.csv", {"text": ["x"] * 3, "label": ["spam", "ham", "spam"]})
        )
    )
    assert (examples.names, examples.labels, examples.numbered) == (
        ("ham", "spam"),
        [1, 0, 1],
        False,
    )


def test_digits_as_words_are_numbers(tmp_path):
    source = save_rows(tmp_path, "a.json", {"text": ["x"] * 3, "label": ["10", "9", "2"]})
    assert load_examples(TextClassification(data=source)).labels == [10, 9, 2]


def png(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def test_images_come_as_bytes_as_paths_and_as_pixels(tmp_path):
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    image = Image.fromarray(pixels)
    image.save(tmp_path / "one.png")
    pd.DataFrame({"image": [{"bytes": png(image), "path": None}], "label": [1]}).to_parquet(
        tmp_path / "a.parquet"
    )
    pd.DataFrame({"image": [pixels.tolist()], "label": [1]}).to_parquet(tmp_path / "b.parquet")
    pd.DataFrame({"image": ["one.png"], "label": [1]}).to_csv(tmp_path / "c.csv", index=False)
    read = [
        load_examples(ImageClassification(data=str(tmp_path / name)))
        for name in ("a.parquet", "b.parquet", "c.csv")
    ]
    assert all(np.array_equal(np.asarray(examples.inputs[0]), pixels) for examples in read)
    assert len({examples.fingerprint for examples in read}) == 1


# --- what is refused ------------------------------------------------------------------------------


def assert_refused(read, *words):
    with pytest.raises(PlainError) as caught:
        read()
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.endswith((".", ")."))
    assert all(word in sentence for word in words), sentence


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
def test_what_names_nothing_is_one_sentence(source):
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


@for_each(
    ("labels", "words"),
    [
        ([0, -1], ["holds the label -1", "choose another"]),
        ([0.5, 1], ["0.5"]),
        ([None, None], ["label"]),
        (["ham", 1.0], ["mixes names and numbers"]),
    ],
)
def test_labels_that_are_none_are_one_sentence(tmp_path, labels, words):
    (tmp_path / "a.json").write_text(
        json.dumps([{"text": "x", "label": label} for label in labels])
    )
    assert_refused(lambda: load_examples(TextClassification(data=str(tmp_path / "a.json"))), *words)


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


@pytest.mark.parametrize("cell", ["missing.png", "a.csv", "12"])
def test_an_unreadable_image_is_one_sentence(tmp_path, cell):
    source = save_rows(tmp_path, "a.csv", {"image": [cell], "label": [0]})
    assert_refused(lambda: load_examples(ImageClassification(data=source)), "The image")


def test_plain_text_has_no_labels(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    assert_refused(
        lambda: load_examples(TextClassification(data=str(tmp_path / "a.txt"))), "without columns"
    )


# --- Hub datasets, without a network --------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch):
    """Sets what ``load_dataset`` gives or raises; returns what it was asked for."""
    requests = []

    def answering(answer):
        def load_dataset(name, config=None, **options):
            requests.append((name, config, options["split"], options["revision"]))
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        return requests

    return answering


def test_a_hub_dataset_is_named_with_configuration_and_revision(hub):
    request = hub(datasets.Dataset.from_dict({"text": ["a", "", "b"]}))
    text = load_text("Salesforce/wikitext:wikitext-2-raw-v1@main", split="validation")
    assert request == [("Salesforce/wikitext", "wikitext-2-raw-v1", "validation", "main")]
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


def test_labelled_rows_without_any_text_are_refused(tmp_path):
    for texts in (["", " "], [None, None]):
        task = TextClassification(
            data=save_rows(tmp_path, "a.json", {"text": texts, "label": [0, 1]})
        )
        assert_refused(
            lambda task=task: load_examples(task),
            "a.json has no text in its column 'text'",
            "text_column",
        )
    one = TextClassification(
        data=save_rows(tmp_path, "b.json", {"text": ["", "word"], "label": [0, 1]})
    )
    assert load_examples(one).inputs.count("") == 1


def test_large_images_pipes_and_damaged_ones_are_refused_before_they_are_decoded(
    tmp_path, monkeypatch
):
    pixels = np.zeros((8, 8), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (tmp_path / "bomb.ppm").write_bytes(b"P6 60000 60000 255\n")
    os.mkfifo(tmp_path / "pipe.png")
    assert_refused(lambda: cell_image("bomb.ppm", tmp_path), "bomb.ppm", "image")
    assert_refused(lambda: cell_image("pipe.png", tmp_path), "not a regular file")
    monkeypatch.setattr(data, "MAX_PIXELS_IN_ALL", 200)
    assert len(images_in(["a.png"] * 3, tmp_path)) == 3
    assert_refused(lambda: images_in(["a.png"] * 4, tmp_path), "200 pixels", "task.samples")
    monkeypatch.setattr(data, "MAX_PIXELS", 63)
    assert_refused(lambda: cell_image("a.png", tmp_path), "8 x 8 pixels", "63")
