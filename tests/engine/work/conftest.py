"""What the tests of the engine's work share."""

import pytest

from engine.work import samples


@pytest.fixture(scope="module", autouse=True)
def few_words():
    """Models of random weights have little to say, and saying it takes most of a tiny run's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samples, "NEW_TOKENS", 4)
        yield
