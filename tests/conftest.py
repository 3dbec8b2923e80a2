"""What all tests share."""

import os

import pytest
from hypothesis import settings

for threads in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # as many processes as cores test already
    os.environ.setdefault(threads, "1")

settings.register_profile("patient", deadline=None)  # the machine may be busy with something else
settings.load_profile("patient")


@pytest.fixture(scope="module", autouse=True)
def kept_apart(tmp_path_factory):
    """Nothing is read from or written to this machine's own results and caches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMPRESSION_EXPLORER_HOME", str(tmp_path_factory.mktemp("home")))
        yield
