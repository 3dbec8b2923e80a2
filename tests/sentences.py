"""Messages that a user reads."""

import re


def assert_one_clear_sentence(text: str):
    assert text[0].isupper() and text.endswith(".") and "\n" not in text and len(text) < 1000
    assert not re.search(r"[Ii]nput should|pydantic|Value error|\bNone\b|<class|Traceback", text), (
        text
    )
