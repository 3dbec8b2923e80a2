"""Data files that unpack to more than the memory limit are refused before they are read."""

import resource

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.errors import PlainError
from engine.evaluation.data import parquet
from engine.evaluation.data.parquet import check_parquet_size
from engine.evaluation.data.sources import file_table
from tests.cases import for_each

SENTENCE = (
    r"^{name} holds more than 2.0 GB once it is unpacked, and at most that is read; keep fewer "
    r"rows or columns of it\.$"
)


def bomb(path, table: pa.Table, **options):
    """Write a strongly compressed file and return its path."""
    pq.write_table(table, path, compression="zstd", **options)
    return path


def repeated_text(length: int, rows: int) -> pa.Table:
    """Table in which all rows refer to one text."""
    return pa.table(
        {
            "text": pa.DictionaryArray.from_arrays(
                pa.array([0] * rows, pa.int32()), pa.array(["a" * length])
            )
        }
    )


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_one_long_text_that_many_rows_point_to_is_refused_without_writing_it_out(tmp_path):
    path = bomb(tmp_path / "bomb.parquet", repeated_text(20_000_000, 1000))
    assert path.stat().st_size < 50_000
    before = peak_bytes()
    with pytest.raises(PlainError, match=SENTENCE.format(name="bomb.parquet")):
        file_table(path)
    assert peak_bytes() - before < 500e6, "of 20 GB"


def test_many_rows_of_nothing_are_refused_by_the_metadata(tmp_path, monkeypatch):
    path = bomb(tmp_path / "rows.parquet", pa.table({"label": pa.repeat(pa.scalar(7), 300_000)}))
    assert path.stat().st_size < 5_000
    monkeypatch.setattr(parquet, "MAX_BYTES", 2_000_000)
    monkeypatch.setattr(parquet.pq.ParquetFile, "iter_batches", None)  # nothing is read
    with pytest.raises(PlainError, match="rows.parquet holds more than"):
        file_table(path)


@pytest.mark.parametrize("dictionary", [True, False])
def test_the_bytes_counted_are_those_of_the_texts(tmp_path, monkeypatch, dictionary):
    """In every encoding, the same table is refused at the same size, up to lengths and offsets."""
    texts = ["x" * 1000, "y" * 3000] * 500
    path = bomb(
        tmp_path / "texts.parquet",
        pa.table({"text": texts, "label": [1.5] * 1000}),
        use_dictionary=dictionary,
    )
    size = sum(map(len, texts)) + 8 * 1000
    monkeypatch.setattr(parquet, "MAX_BYTES", int(1.05 * size))
    check_parquet_size(path)
    assert len(file_table(path)) == 1000
    monkeypatch.setattr(parquet, "MAX_BYTES", int(0.95 * size))
    with pytest.raises(PlainError):
        file_table(path)


def test_ordinary_files_are_read_as_pandas_reads_them(tmp_path):
    frame = pd.DataFrame(
        {
            "text": ["a", "b", None] * 50,
            "label": [0, 1, 2] * 50,
            "words": [["x", "y"], [], ["z"]] * 50,
        }
    )
    frame.to_parquet(tmp_path / "data.parquet")
    pd.testing.assert_frame_equal(
        file_table(tmp_path / "data.parquet").frame, pd.read_parquet(tmp_path / "data.parquet")
    )


@for_each("suffix", [".csv", ".jsonl", ".json", ".parquet"])
def test_a_file_above_the_unpacked_limit_is_not_opened(tmp_path, suffix):
    path = tmp_path / f"large{suffix}"
    with path.open("wb") as file:
        file.truncate(3 * 10**9)
    with pytest.raises(PlainError, match=SENTENCE.format(name=f"large{suffix}")):
        file_table(path)


def test_an_invalid_parquet_file_gives_the_same_message_as_before(tmp_path):
    (tmp_path / "no.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(PlainError, match=r"no.parquet cannot be read as parquet \(.*\)"):
        file_table(tmp_path / "no.parquet")
