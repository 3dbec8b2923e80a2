"""Continuations of both models, and which of them are kept for the next run."""

import torch

from engine.evaluation.data.cache import data_folder
from engine.events import ProgressEvent
from engine.measurement import generations as samples
from engine.measurement.generations import sample_rows
from engine.models.loaded_model import load_model
from engine.models.loading import resolve_model
from engine.models.packed_modules import dense_bytes, keep_unpacked, unpacking_layers
from engine.step.run_context import RunContext
from tests.recipes import recipe_for
from tests.tiny import tiny

CPU = torch.device("cpu")


def model_and_recipe(tmp_path, architecture: str = "llama"):
    folder = tiny(architecture, tmp_path / "model")
    return (
        resolve_model(str(folder)),
        load_model(resolve_model(str(folder)), CPU, torch.float32).model,
        recipe_for(architecture, folder, tmp_path / "data"),
    )


def test_the_original_speaks_once_and_the_compressed_model_each_time(tmp_path, monkeypatch):
    folder, model, recipe = model_and_recipe(tmp_path)
    first = sample_rows(recipe, folder, model, model)
    requests = []
    monkeypatch.setattr(
        samples, "greedy_continuation", lambda *given: requests.append(given) or "new"
    )
    second = sample_rows(recipe, folder, model, model)
    assert (
        [row.original for row in second]
        == [row.original for row in first]
        == [row.compressed for row in first]
    )
    assert len(requests) == len(first) == 3 and {row.compressed for row in second} == {"new"}


def test_what_is_kept_belongs_to_one_model_and_length_and_is_made_anew_when_damaged(
    tmp_path, monkeypatch
):
    folder, model, recipe = model_and_recipe(tmp_path)
    before = set(data_folder().glob("continued-*"))
    first = sample_rows(recipe, folder, model, model)
    (kept,) = set(data_folder().glob("continued-*")) - before
    kept.write_text("{")
    assert sample_rows(recipe, folder, model, model) == first
    monkeypatch.setattr(samples, "NEW_TOKENS", 6)
    sample_rows(recipe, folder, model, model)
    assert len(set(data_folder().glob("continued-*")) - before) == 2


def test_a_classifier_says_nothing(tmp_path):
    folder, model, recipe = model_and_recipe(tmp_path, "bert")
    assert sample_rows(recipe, folder, model, model) == []


def test_a_small_model_is_unpacked_once_while_it_is_measured_and_a_large_one_is_not(
    tmp_path, monkeypatch
):
    folder, model, recipe = model_and_recipe(tmp_path)
    assert dense_bytes(model) == 4 * sum(
        layer.stored.shape[0] * layer.stored.shape[1] for layer in unpacking_layers(model)
    )
    held = []
    monkeypatch.setattr(
        "engine.step.run_context.evaluate",
        lambda task, model, *rest: held.append(unpacking_layers(model)[1].unpacked is not None),
    )
    RunContext(recipe, folder).evaluate(model, folder, ProgressEvent("measuring-result"))
    monkeypatch.setattr("engine.step.run_context.MAX_UNPACKED_BYTES", dense_bytes(model) - 1)
    RunContext(recipe, folder).evaluate(model, folder, ProgressEvent("measuring-result"))
    assert held == [True, False] and all(
        layer.unpacked is None for layer in unpacking_layers(model)
    )


def test_held_dense_or_not_the_answers_are_the_same_to_the_bit(tmp_path):
    _, model, _ = model_and_recipe(tmp_path)
    ids = torch.arange(5, 25)[None]
    with torch.inference_mode():
        before = model(ids).logits
        with keep_unpacked(model):
            assert torch.equal(model(ids).logits, before)
