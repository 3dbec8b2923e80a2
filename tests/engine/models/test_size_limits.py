"""A model much larger than its files is refused while it is built."""

import re

import pytest

from engine.errors import PlainError
from engine.models.loading import meta_model
from engine.models.model_source import resolve_model
from tests.answers import model_view
from tests.cases import for_each

BUILT = [
    ("llama", {"vocab_size": 10**9}),
    ("llama", {"hidden_size": 48_000_000}),
    ("llama", {"intermediate_size": 10**9}),
    ("gpt2", {"n_positions": 10**8}),
    ("mixtral", {"num_local_experts": 10**6}),
    ("vit", {"image_size": 10**6}),
]


@for_each("base, fields", BUILT, ids=lambda value: str(value)[:40])
def test_a_model_much_larger_than_its_files_is_refused_while_it_is_built(copy_model, base, fields):
    """Refused by questions and forecasts; neither needs the memory of such a model."""
    folder = copy_model(base, **fields)
    for build in (lambda: meta_model(resolve_model(str(folder))), lambda: model_view(str(folder))):
        with pytest.raises(
            PlainError,
            match=(
                r"describes a model with (more than|tables of more than) .*its weight files do "
                r"not contain"
            ),
        ):
            build()


def test_more_tensors_than_stored_are_refused_after_a_few_thousand(copy_model, monkeypatch):
    """For a layer count with an unknown name."""
    monkeypatch.setattr("engine.models.config_check.LAYER_COUNT", re.compile("never"))
    folder = resolve_model(
        str(
            copy_model(
                "llama",
                num_hidden_layers=10_000,
                hidden_size=4,
                num_attention_heads=2,
                intermediate_size=4,
            )
        )
    )
    with pytest.raises(PlainError, match=r"more than 2,\d\d\d tensors"):
        meta_model(folder)
