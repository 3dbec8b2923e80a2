"""Counts of the original model, as they are stored."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import PlainError
from engine.models.origin import Origin
from tests.cases import for_each

counts = st.integers(0, 10**12)


@given(counts, st.dictionaries(st.text(max_size=5), counts, max_size=3), counts)
def test_an_origin_is_read_back_unchanged(parameters, compressed, removed):
    origin = Origin(parameters + 1, compressed, removed)
    assert Origin.from_json(json.loads(json.dumps(origin.to_json())), "it") == origin
    assert origin.compressed_parameters == sum(compressed.values()) + removed


@for_each(
    "fields",
    [
        None,
        [],
        {},
        {"parameters": 0, "compressed": {}, "removed": 0},
        {"parameters": 5, "compressed": {}, "removed": -1},
        {"parameters": 5, "compressed": {"a": 1.5}, "removed": 0},
        {"parameters": True, "compressed": {}, "removed": 0},
        {"parameters": 5, "compressed": [], "removed": 0},
        {"parameters": 5, "compressed": {}, "removed": 0, "more": 1},
    ],
    ids=str,
)
def test_anything_else_is_refused_in_a_sentence(fields):
    with pytest.raises(PlainError, match=r"^The origin in compression.json of it is damaged; "):
        Origin.from_json(fields, "it")
