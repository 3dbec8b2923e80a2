import numpy as np
import pytest

from engine.evaluation.data.cache import keep, kept_in, kept_or_made


def kept(make):
    return kept_or_made(kept_in() / "row.npy", np.load, make, np.save)


def test_what_is_kept_is_not_made_again():
    kept(lambda: np.arange(3))
    assert kept(lambda: pytest.fail("made again")).tolist() == [0, 1, 2]


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", b"nonsense"])
def test_a_damaged_file_is_made_again(damage):
    kept(lambda: np.arange(3))
    (kept_in() / "row.npy").write_bytes(damage)
    assert kept(lambda: np.arange(3)).tolist() == [0, 1, 2]
    assert np.load(kept_in() / "row.npy").tolist() == [0, 1, 2]


def test_a_cache_that_cannot_be_written_fails_nothing(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("COMPRESSION_EXPLORER_HOME", str(tmp_path / "file"))
    assert kept(lambda: np.arange(3)).tolist() == [0, 1, 2]


def test_a_write_that_breaks_off_leaves_nothing(tmp_path):
    def breaks_off(part):
        part.write_bytes(b"half")
        raise OSError("disk full")

    keep(tmp_path / "row.npy", breaks_off)
    assert list(tmp_path.iterdir()) == []
