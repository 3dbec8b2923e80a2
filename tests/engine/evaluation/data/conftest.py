"""Fixtures of tests of data."""

import pytest


@pytest.fixture
def write_file(tmp_path):
    def write(name: str, content: bytes) -> str:
        (tmp_path / name).write_bytes(content)
        return str(tmp_path / name)

    return write
