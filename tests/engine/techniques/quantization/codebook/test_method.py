"""Codebooks by k-means, with and without Huffman coding."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.pipeline.run import run
from engine.quantities import megabytes
from engine.techniques.implementations import compress, storage_plan
from engine.techniques.quantization.codebook.config import Codebook
from engine.techniques.quantization.rounding.config import RoundToNearest
from tests.answers import forecast, what_if
from tests.cases import for_each
from tests.matrices import normal, squared_error, weights
from tests.recipes import recipe_for
from tests.techniques import CODEBOOKS, HUFFMAN, technique_id
from tests.tiny import tiny

few = settings(max_examples=20)


@few
@given(weights(), st.integers(1, 8))
def test_k_means_is_never_worse_than_as_many_even_levels(weight, bits):
    even = torch.linspace(weight.min().item(), weight.max().item(), 2**bits, dtype=torch.float64)
    nearest = (weight.double()[..., None] - even).abs().amin(-1).square().sum().item()
    size = weight.double().square().sum().item()
    for start in ("best", "linear"):
        assert (
            squared_error(Codebook(bits=bits, start=start), weight)
            <= nearest * (1 + 1e-6) + size * 1e-12
        )


@for_each("bits", [2, 3, 4, 6, 8])
def test_k_means_beats_the_grid_with_one_scale(bits):
    weight = normal(64, 256)
    for scheme in ("symmetric", "asymmetric"):
        assert squared_error(Codebook(bits=bits, start="best"), weight) < squared_error(
            RoundToNearest(bits=bits, granularity="tensor", scheme=scheme, range="mse"), weight
        )


@for_each("config", [*CODEBOOKS, *HUFFMAN], ids=technique_id)
@few
@given(weights())
def test_every_weight_takes_the_nearest_value_of_its_book(config, weight):
    stored = compress(config, weight)
    books = stored.books[torch.arange(len(weight)) // stored.rows]
    assert (stored.books.diff(dim=1) >= 0).all()
    nearest = (weight[..., None] - books[:, None]).abs().amin(-1)
    torch.testing.assert_close(
        (stored.to_dense() - weight).abs(),
        nearest,
        rtol=1e-5,
        atol=1e-6 * weight.abs().max().item(),
    )


def test_each_value_is_the_mean_of_its_weights():
    weight = normal(32, 64)
    stored = compress(Codebook(bits=2), weight)
    for place, value in enumerate(stored.books[0].tolist()):
        assert value == pytest.approx(
            weight.flatten()[stored.indices() == place].mean().item(), abs=1e-5
        )


def test_a_layer_with_as_few_values_as_the_book_is_stored_exactly():
    values = torch.tensor([-3.0, -0.5, 0.0, 2.0])
    weight = values[torch.randint(4, (9, 40), generator=torch.Generator().manual_seed(0))]
    assert torch.equal(compress(Codebook(bits=2, start="density"), weight).to_dense(), weight)


def test_a_random_start_follows_the_seed():
    weight, config = normal(16, 64), Codebook(start="random")
    with torch.random.fork_rng(devices=[]):
        books = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            torch.rand(len(books))  # what else draws does not matter
            books.append(compress(config, weight).books)
    assert torch.equal(books[0], books[1]) and not torch.equal(books[0], books[2])


@for_each("config", HUFFMAN, ids=technique_id)
def test_huffman_coding_changes_the_bytes_and_not_the_weights(config):
    weight = normal(48, 172)
    coded, plain = (
        compress(config, weight),
        compress(config.model_copy(update={"coding": "fixed"}), weight),
    )
    assert torch.equal(coded.to_dense(), plain.to_dense()) and torch.equal(
        coded.to("cpu").indices(), plain.indices()
    )
    assert (
        coded.codes.nbytes <= plain.codes.nbytes
        and coded.nbytes <= storage_plan(config, (48, 172)).nbytes
    )
    assert coded.nbytes == sum(value.nbytes for value in coded.tensors().values())


def test_the_planned_huffman_size_is_the_stored_size():
    weight = normal(64, 256)
    coded, plain = (
        compress(Codebook(bits=4, coding=coding), weight) for coding in ("huffman", "fixed")
    )
    said = plain.note()
    assert (
        said.startswith("with Huffman coding the indices would take ")
        and f"{megabytes(coded.codes.nbytes)} instead of 8.2 kB" in said
    )
    assert (
        coded.note().startswith("Huffman-coded indices take ")
        and coded.note().split("take ")[1] == said.split("take ")[1]
    )


def test_a_forecast_of_huffman_coding_is_an_upper_bound_and_says_so(tmp_path):
    model = tiny("llama", tmp_path / "model")
    recipe = recipe_for(
        "llama", model, tmp_path / "data", {"technique": "codebook", "coding": "huffman"}
    )
    said, size = forecast(recipe), run(recipe).summary.result.size_bytes
    assert said.at_most and not said.at_least and said.size_bytes > size
    assert not forecast(
        recipe.model_copy(update={"steps": (Codebook(),)}).model_dump(mode="json")
    ).at_most


def test_a_what_if_of_a_codebook_is_repeatable_and_names_the_huffman_size(tmp_path):
    model = str(tiny("llama", tmp_path / "model"))
    step = {"technique": "codebook", "start": "random"}
    first, again = (what_if(model, "model.layers.0.mlp.up_proj", step) for _ in range(2))
    assert first.row == again.row and "Huffman" in first.row.note
