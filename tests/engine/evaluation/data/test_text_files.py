"""Text files of all formats give the same rows, or a message that names the separator or
encoding.
"""

import bz2
import csv
import gzip
import io
import json
import lzma
import os

import pyarrow
import pyarrow.parquet
import pytest

from engine.errors import PlainError
from engine.evaluation.data import sources, text_files
from engine.evaluation.data.examples import load_examples, load_text
from engine.evaluation.data.sources import is_local, load_table
from engine.recipe.tasks import Calibration, TextClassification, file_kind, is_data_file
from engine.runtime.platform_support import LINUX, limited_memory
from tests.cases import for_each

TEXTS = [
    "Crème brûlée, très bon; à refaire",
    'He said "no" | twice',
    "line one\nline two",
    "tab\tinside",
    "plain",
    "über, alles",
]
LABELS = [0, 1, 1, 0, 1, 0]


def delimited_bytes(separator: str, encoding: str = "utf-8") -> bytes:
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=separator)
    writer.writerows([("text", "label"), *zip(TEXTS, LABELS, strict=True)])
    return out.getvalue().encode(encoding)


def lines(encoding: str = "utf-8") -> bytes:
    rows = zip(TEXTS, LABELS, strict=True)
    return "\n".join(
        json.dumps({"text": text, "label": label}, ensure_ascii=False) for text, label in rows
    ).encode(encoding)


def array(encoding: str = "utf-8") -> bytes:
    return json.dumps(
        [{"text": text, "label": label} for text, label in zip(TEXTS, LABELS, strict=True)],
        ensure_ascii=False,
    ).encode(encoding)


def zstd(content: bytes) -> bytes:
    return pyarrow.Codec("zstd").compress(content, asbytes=True)


FILES = {
    "commas": ("a.csv", delimited_bytes(",")),
    "semicolons": ("a.csv", delimited_bytes(";")),
    "tabs": ("a.csv", delimited_bytes("\t")),
    "vertical bars": ("a.csv", delimited_bytes("|")),
    "tsv": ("a.tsv", delimited_bytes("\t")),
    "tsv with commas": ("a.tsv", delimited_bytes(",")),
    "mark": ("a.csv", delimited_bytes(";", "utf-8-sig")),
    "utf-16": ("a.csv", delimited_bytes(",", "utf-16")),
    "utf-16 tabs": ("a.txt.csv", delimited_bytes("\t", "utf-16")),  # Excel's "Unicode text"
    "utf-16 without mark": ("a.csv", delimited_bytes(",", "utf-16-le")),
    "utf-16 big end first": ("a.csv", delimited_bytes(",", "utf-16-be")),
    "utf-32": ("a.csv", delimited_bytes(",", "utf-32")),
    "latin-1": ("a.csv", delimited_bytes(";", "latin-1")),
    "windows": ("a.tsv", delimited_bytes("\t", "cp1252")),
    "gzip": ("a.csv.gz", gzip.compress(delimited_bytes(";", "latin-1"))),
    "bzip2": ("A.TSV.BZ2", bz2.compress(delimited_bytes("\t"))),
    "xz": ("a.csv.xz", lzma.compress(delimited_bytes(","))),
    "zstd": ("a.csv.zst", zstd(delimited_bytes(","))),
    "lines": ("a.jsonl", lines()),
    "lines with a mark": ("a.jsonl", lines("utf-8-sig")),
    "lines in utf-16": ("a.ndjson", lines("utf-16")),
    "lines named json": ("a.json", lines("utf-8-sig")),
    "lines zipped": ("a.jsonl.gz", gzip.compress(lines("utf-8-sig"))),
    "lines zstd": ("a.jsonl.zst", zstd(lines())),
    "array": ("a.json", array("utf-8-sig")),
    "array named jsonl": ("a.jsonl", array()),
    "array in latin-1": ("a.json", array("latin-1")),
    "array zipped": ("a.json.gz", gzip.compress(array())),
}


@for_each(("name", "content"), FILES.values(), ids=FILES)
def test_every_file_gives_the_same_rows(name, content, write_file):
    source = write_file(name, content)
    examples = load_examples(TextClassification(data=source))
    assert (examples.inputs, examples.labels) == (TEXTS, LABELS)
    assert load_text(source).texts == TEXTS and is_data_file(source) and is_local(source)


@for_each(
    ("kind", "words"),
    [
        ("commas", []),
        ("tsv", []),
        ("mark", ["semicolons"]),
        ("utf-16", []),
        ("array", []),
        ("lines with a mark", []),
        ("semicolons", ["separated by semicolons"]),
        ("latin-1", ["Windows-1252 (Latin-1); if letters look wrong", "semicolons"]),
        ("utf-16 without mark", ["no byte order mark and was read as UTF-16"]),
        ("gzip", ["Windows-1252", "semicolons"]),
        ("tsv with commas", ["commas"]),
    ],
)
def test_assumptions_are_noted_and_certainties_are_not(kind, words, write_file):
    notes = load_examples(TextClassification(data=write_file(*FILES[kind]))).notes
    assert len(notes) == len(words) and all(
        word in note for word, note in zip(words, notes, strict=True)
    ), notes


def test_texts_are_decoded_and_unpacked_too(write_file):
    text = "un café noir\r\net du thé"
    files = {
        "a.txt": text.encode("utf-16"),
        "b.txt": text.encode("latin-1"),
        "c.txt.gz": gzip.compress(text.encode()),
    }
    assert all(
        load_text(write_file(name, content)).texts == [text] for name, content in files.items()
    )


def test_stray_quotation_marks_of_a_tsv_are_plain_characters(write_file):
    """In GLUE's files, a field may start with an unclosed quotation mark."""
    content = 'text\tlabel\n"Open quote\t1\nplain\t0\n"whole"\t1\n"another\t0\n'
    examples = load_examples(TextClassification(data=write_file("a.tsv", content.encode())))
    assert examples.inputs == [
        '"Open quote',
        "plain",
        '"whole"',
        '"another',
    ] and examples.labels == [1, 0, 1, 0]
    assert any("Quotation marks" in note for note in examples.notes)


@for_each(
    ("name", "content", "words"),
    [
        (
            "a.csv",
            b"text\nHello, world\nGood, bye\n",
            ["rows have more values than the header", "commas"],
        ),
        ("a.csv", b"text,label\nx,0\na,b,c,1\n", ["separated by commas"]),
        (
            "a.csv",
            ("text,label\n" + "Привет,1\n" * 40).encode("cp1251"),
            ["not UTF-8", "encoding cannot be detected", "save it as UTF-8"],
        ),
        ("a.txt", "日本語のテキスト".encode("shift-jis"), ["encoding cannot be detected"]),
        ("a.csv", bytes(range(256)) * 20, ["null bytes", "not text"]),
        ("a.csv.gz", b"text,label\nx,1\n", ["cannot be read", "Not a gzipped file"]),
        ("a.csv.gz", gzip.compress(delimited_bytes(","), mtime=0)[:40], ["cannot be read"]),
        ("a.csv.zst", b"text,label\nx,1\n", ["cannot be read"]),
        ("a.csv.xz", b"text", ["cannot be read"]),
        ("a.parquet.gz", b"x", ["which is not supported"]),
        ("a.csv.zip", b"x", ["a .zip file"]),
    ],
)
def test_an_unreadable_file_gives_one_message(name, content, words, write_file):
    with pytest.raises(PlainError) as error:
        load_table(write_file(name, content), "test") if not name.endswith(".txt") else load_text(
            write_file(name, content)
        )
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value), str(
        error.value
    )


def test_a_small_file_that_unpacks_to_a_large_one_is_refused_as_it_is_read(write_file, monkeypatch):
    monkeypatch.setattr(text_files, "MAX_UNPACKED", 100_000)
    for name, content in {
        "a.csv.gz": gzip.compress(b"text\n" + b"x" * 10**7),
        "a.txt.xz": lzma.compress(b"x" * 10**7),
    }.items():
        with pytest.raises(PlainError, match="unpacks to more than"):
            load_text(write_file(name, content))


def test_a_pipe_is_not_read_as_data(tmp_path):
    os.mkfifo(tmp_path / "a.txt")
    with pytest.raises(PlainError, match="not a regular file"):
        load_text(str(tmp_path / "a.txt"))


@for_each(
    ("name", "kind"),
    [
        ("a.CSV.gz", ".csv"),
        ("a.tsv", ".tsv"),
        ("data.v2.jsonl.zst", ".jsonl"),
        ("a.gz", ""),
        ("org/name", ""),
        ("a.tar.gz", ".tar"),
    ],
)
def test_the_kind_of_a_file_is_its_ending_without_the_compression(name, kind):
    assert file_kind(name) == kind and is_data_file(name) == (kind in (".csv", ".tsv", ".jsonl"))


def test_calibration_reads_them_too(write_file):
    source = write_file("a.csv.gz", gzip.compress(b"text;label\n" + b"some words;1\n" * 20))
    assert len(load_text(source, Calibration().text_column).texts) == 20


# --- files made to be large, odd or mislabeled ----------------------------------------------------


def test_a_header_of_any_width_is_refused_before_it_is_parsed(tmp_path):
    for name, header in (
        ("wide.csv", ",".join(map(str, range(20_000)))),
        ("long.csv", "x," * 200_000),
    ):
        (tmp_path / name).write_text(f"{header}\n")
        with pytest.raises(
            PlainError, match="more than 10,000 columns|first line of long.csv is longer"
        ):
            load_table(str(tmp_path / name), "test")


def test_json_rows_with_a_key_of_their_own_each_do_not_become_a_square_table(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MAX_CELLS", 1000)
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps({f"k{number}": 1}) for number in range(100)))
    with pytest.raises(PlainError, match="100 rows of 100 columns"):
        load_table(str(path), "test")
    path.write_text("\n".join(json.dumps({f"k{number}": 1}) for number in range(20_000)))
    with pytest.raises(PlainError, match="more than 10,000 columns"):
        load_table(str(path), "test")


@pytest.mark.skipif(not LINUX, reason="only Linux limits a process's memory")
def test_reading_stops_at_the_memory_limit():
    with pytest.raises(MemoryError), limited_memory(100_000_000):
        bytearray(400_000_000)
    assert len(bytearray(400_000_000)) == 400_000_000


@pytest.mark.skipif(not LINUX, reason="only Linux limits a process's memory")
@pytest.mark.parametrize("kind", ["delta", "list", "dotted"])
def test_parquet_values_that_repeat_their_text_are_refused(kind, tmp_path, monkeypatch):
    """Neither the sizes in the file nor its dictionaries tell how much these unpack to."""
    text, path = "x" * 1_000_000, tmp_path / "a.parquet"
    column = pyarrow.array([[text]] * 500 if kind == "list" else [text] * 500)
    options = (
        {"use_dictionary": False, "column_encoding": "DELTA_BYTE_ARRAY"} if kind == "delta" else {}
    )
    name = "a.b" if kind == "dotted" else "text"
    pyarrow.parquet.write_table(pyarrow.table({name: column}), path, compression="zstd", **options)
    assert path.stat().st_size < 100_000
    monkeypatch.setattr(sources, "READING_BYTES", 300_000_000)
    with pytest.raises(PlainError, match="once it is unpacked"):
        load_table(str(path), "test")


def test_a_line_that_names_the_separator_is_not_the_header(tmp_path):
    (tmp_path / "excel.csv").write_bytes(b"sep=;\r\n" + delimited_bytes(";"))
    assert load_table(str(tmp_path / "excel.csv"), "test").columns == ["text", "label"]


def test_a_packed_file_is_known_by_its_first_bytes(tmp_path):
    (tmp_path / "a.csv").write_bytes(gzip.compress(delimited_bytes(",")))
    assert len(load_table(str(tmp_path / "a.csv"), "test")) == len(TEXTS)


def test_an_unknown_separator_is_answered_by_those_that_are_known(tmp_path):
    (tmp_path / "a.csv").write_text("text:label\na:1\n")
    with pytest.raises(
        PlainError,
        match="its only column is 'text:label'.*commas, tabs, semicolons or vertical bars",
    ):
        load_text(str(tmp_path / "a.csv"))
