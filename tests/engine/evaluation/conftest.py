import pytest


@pytest.fixture(autouse=True)
def kept_apart(request, tmp_path, monkeypatch):
    """Nothing is read from or written to this machine's own cache."""
    if request.module.__name__.rpartition(".")[2] != "test_corpora":
        monkeypatch.setenv("COMPRESSION_EXPLORER_HOME", str(tmp_path / "home"))
