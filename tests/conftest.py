"""What all tests share."""

import pytest
from hypothesis import settings

settings.register_profile("patient", deadline=None)  # the machine may be busy with something else
settings.load_profile("patient")


@pytest.fixture(scope="module", autouse=True)
def kept_apart(tmp_path_factory):
    """Nothing is read from or written to this machine's own results and caches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMPRESSION_EXPLORER_HOME", str(tmp_path_factory.mktemp("home")))
        yield
