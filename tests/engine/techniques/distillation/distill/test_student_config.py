"""Sizes in the configs of students with fewer blocks, heads or hidden units."""

import json

import pytest
import torch

from engine.errors import PlainError
from engine.models.loaded_model import load_model
from engine.models.loading import resolve_model
from engine.pipeline.run import run
from engine.recipe import Recipe
from tests.distillation import CPU, SHORT, error_message
from tests.recipes import recipe_for
from tests.tiny import tiny

TWELVE = {"num_hidden_layers": 12, "num_attention_heads": 12}


@pytest.mark.parametrize(
    ("architecture", "deep", "names"),
    [
        (
            "bert",
            {"num_hidden_layers": 12, "num_attention_heads": 12},
            ("num_hidden_layers", "num_attention_heads", "hidden_size", "intermediate_size"),
        ),
        (
            "gpt2",
            {"n_layer": 12, "n_head": 12, "n_inner": None},
            ("n_layer", "n_head", "n_embd", "n_inner"),
        ),
        (
            "opt",
            TWELVE,
            ("num_hidden_layers", "num_attention_heads", "word_embed_proj_dim", "ffn_dim"),
        ),
    ],
)
def test_block_and_width_shares_scale_every_size_of_the_config(architecture, deep, names, tmp_path):
    """Only the config counts: heads keep their width (4), so the width is 32; the inner one
    follows, or is omitted.
    """
    model = tiny(architecture, tmp_path / "deep", **deep)
    step = SHORT | {"steps": 1, "blocks": 4 / 12, "width": 8 / 12}
    outcome = run(
        recipe_for(architecture, model, tmp_path / "data", step), save=tmp_path / "student"
    )
    config = json.loads((tmp_path / "student" / "config.json").read_text())
    assert [config[name] for name in names] == [4, 8, 32, None if architecture == "gpt2" else 116]
    assert (
        load_model(resolve_model(str(tmp_path / "student")), CPU, torch.float32).parameters
        == outcome.summary.result.parameters
    )


def test_an_unknown_width_field_gives_a_message(folders, tmp_path, monkeypatch, run_step):
    monkeypatch.setattr(
        "engine.techniques.distillation.distill.student_config.INNER_WIDTH_FIELDS", ()
    )
    assert "(width) to 1" in error_message(run_step, "gpt2", width=0.5)


def test_heads_of_a_model_without_heads_and_heads_with_width_are_refused(run_step):
    assert "has no heads; set " in error_message(run_step, "resnet", heads=0.5)
    with pytest.raises(PlainError, match="already removes heads"):
        Recipe.from_dict({"steps": [{"technique": "distill", "width": 0.5, "heads": 0.5}]})
