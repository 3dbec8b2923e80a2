"""Counts in config.json are held against what the weight files contain."""

import pytest

from engine.errors import PlainError
from engine.models import model_source as folders
from engine.models.loading import meta_model
from engine.models.model_source import resolve_model
from tests.cases import for_each

COUNTS = [
    ("llama", "", {"num_hidden_layers": 10_000_000}),
    ("llama", "", {"num_hidden_layers": 10**12}),  # transformers creates a list of this length
    ("gpt2", "", {"n_layer": 10_000_000}),
    ("resnet", "", {"depths": [1, 10**9]}),
    ("bert", "", {"num_labels": 10**9}),
    ("llama", "text_config", {"num_hidden_layers": 10_000_000}),
    ("llama", "vision_config", {"depth": 10_000_000}),
    ("llama", "", {"attention_types": [[["global"], 10**9]]}),
]


@for_each("base, part, fields", COUNTS, ids=lambda value: str(value)[:40])
def test_counts_in_config_json_beyond_what_the_files_hold_are_refused_at_once(
    copy_model, base, part, fields
):
    with pytest.raises(
        PlainError, match=f"config.json of .* (sets|has) .*{next(iter(fields))}.*download"
    ) as refused:
        resolve_model(str(copy_model(base, part, **fields)))
    assert "000,000" in str(refused.value)


def test_experts_stacked_in_one_tensor_count_one_by_one(bases):
    """A model may read them from one tensor and store them separately, or the reverse."""
    folder = resolve_model(str(bases["mixtral"]))
    experts = 8
    stacked = [{"shape": [experts, 16, 16], "data_offsets": [0, experts * 16 * 16]}]
    apart = [{"shape": [16, 16], "data_offsets": [0, 16 * 16]}] * experts
    count = folders.header_totals
    assert (
        count(stacked).tensors == count(apart).tensors
        and count(stacked).parameters == count(apart).parameters
    )
    assert (
        meta_model(folder).num_parameters() <= folders.tensor_totals(folder.files, "it").parameters
    )


def test_a_shape_that_its_bytes_cannot_hold_allows_nothing(bases):
    assert (
        folders.header_totals([{"shape": [10**9, 10**9], "data_offsets": [0, 48]}]).parameters == 0
    )
    assert (
        folders.header_totals([{"shape": [0, 10**9], "data_offsets": [0, 0]}]).largest_dimension
        == 0
    )
