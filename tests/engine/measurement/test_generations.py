"""Continuations of both models, and which of them are kept for the next run."""

import torch

from engine.evaluation.data.cache import data_folder
from engine.measurement import generations as samples
from engine.measurement.generations import sample_rows
from tests.recipes import model_and_recipe

CPU = torch.device("cpu")


def test_the_original_generates_once_and_the_compressed_model_each_time(tmp_path, monkeypatch):
    folder, model, recipe = model_and_recipe(tmp_path)
    first = sample_rows(recipe, folder, model, model)
    asked = []
    monkeypatch.setattr(samples, "greedy_continuation", lambda *given: asked.append(given) or "new")
    second = sample_rows(recipe, folder, model, model)
    assert (
        [row.original for row in second]
        == [row.original for row in first]
        == [row.compressed for row in first]
    )
    assert len(asked) == len(first) == 3 and {row.compressed for row in second} == {"new"}


def test_cached_texts_belong_to_one_model_and_length_and_are_rebuilt_when_damaged(
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
