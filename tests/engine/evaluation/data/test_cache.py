import numpy as np
import pytest

from engine.evaluation.data.cache import data_folder, load_or_make, save_to_cache


def cached_row(make):
    return load_or_make(data_folder() / "row.npy", np.load, make, np.save)


def test_cached_data_is_not_rebuilt():
    cached_row(lambda: np.arange(3))
    assert cached_row(lambda: pytest.fail("made again")).tolist() == [0, 1, 2]


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", b"nonsense"])
def test_a_damaged_file_is_made_again(damage):
    cached_row(lambda: np.arange(3))
    (data_folder() / "row.npy").write_bytes(damage)
    assert cached_row(lambda: np.arange(3)).tolist() == [0, 1, 2]
    assert np.load(data_folder() / "row.npy").tolist() == [0, 1, 2]


def test_a_cache_that_cannot_be_written_fails_nothing(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("COMPRESSION_EXPLORER_HOME", str(tmp_path / "file"))
    assert cached_row(lambda: np.arange(3)).tolist() == [0, 1, 2]


def test_a_write_that_breaks_off_leaves_nothing(tmp_path):
    def breaks_off(part):
        part.write_bytes(b"half")
        raise OSError("disk full")

    save_to_cache(tmp_path / "row.npy", breaks_off)
    assert list(tmp_path.iterdir()) == []
