"""Fixtures of the store's tests."""

import os

import pytest


@pytest.fixture(scope="module", autouse=True)
def no_waiting_for_the_disk():
    """Flushing to the disk takes most of the time of writing a small store."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield
