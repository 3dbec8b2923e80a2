import pytest

from engine.interactive import layer_preview
from tests.answers import lesson, piece, weight


def test_looking_closer_does_not_compress_again(questions, monkeypatch):
    question = questions("llama", "rounding")
    lesson(**question)
    monkeypatch.setattr(
        layer_preview, "preview", lambda *args, **kwargs: pytest.fail("compressed again")
    )
    piece(**question)
    weight(**question, row=5, column=5)
